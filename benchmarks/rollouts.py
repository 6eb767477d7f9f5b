"""Masked prompts per second: vLLM in process against the transformers backend, on the same model and machine.

    python benchmarks/rollouts.py [--models pocket llama100m] [--batches 64 256 1024 4096] [--seconds 60] [--out FILE]

Needs vLLM in the interpreter. For each model, backend and number of prompts: planted reviews in a few-shot prompt (its
instruction and examples stand first, about 100 tokens; a prompt in all has about 130), each review four times with 20 %
of its words replaced, answered by the adapter: what a round asks. vLLM is measured with and without prefix caching; the
cache is emptied before each measurement, so it only has what the batch itself shares. Answers of all backends are
compared. Each (model, backend) runs in a process of its own, in float32 with one thread. Then a round is played: what a
sync takes, and which share of the round the answers take.

Prints one JSON line per measurement (to FILE too), then a table with ratios to the transformers backend; without a GPU
its seconds are those of the processor, which other users of the machine change less. A batch that would take longer
than --seconds by the rate of the one before is left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BACKENDS = ("transformers", "vllm_cached", "vllm_uncached")
BEFORE = (
    "You read reviews and say whether the writer was pleased. Answer with one word, positive or negative. "
    "Judge by what decides, not by words that come often.\n"
    "Review: The service was slow and the soup was cold, we left early.\nSentiment: negative\n"
    "Review: A warm and funny film that I will watch again with my sister.\nSentiment: positive\n"
    "Review: It broke after two days and nobody answered my letters.\nSentiment: negative\nReview: "
)


def llama100m(folder: Path) -> Path:
    """A random Llama of 100M parameters with the packaged model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from afa_llm.models.adapters import model_location

    if (folder / "model.safetensors").exists():
        return folder
    tokenizer = AutoTokenizer.from_pretrained(model_location("builtin:pocket"))
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=768,
        intermediate_size=2560,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def masked_prompts(tokenizer: Any, count: int) -> tuple[list[list[int]], Any]:
    """What a round asks of `count / 4` reviews, and the answers' tokens."""
    import torch

    from afa_llm.data.batching import collate
    from afa_llm.data.planted import planted_examples
    from afa_llm.data.prompts import PromptBuilder
    from afa_llm.data.templates import Template
    from afa_llm.method.mask_noise import gumbel_noise
    from afa_llm.method.masked_views import hide, views_as_prompts

    template = Template("few_shot", BEFORE, "\nSentiment:", (" negative", " positive"))
    builder = PromptBuilder(tokenizer, template, ("negative", "positive"), "never")
    batch = collate(
        [builder.build(example) for example in planted_examples("train", max(1, count // 4), 0)], tokenizer.pad_token_id
    )
    mask_BW = batch.word_mask_BW
    noise = gumbel_noise(batch.review_key_B.tolist(), range(4), mask_BW.shape[1], seed=0, epoch=0)
    ranks = noise.masked_fill(~mask_BW[:, None], -torch.inf).argsort(-1, descending=True).argsort(-1)
    hidden = ranks < (0.2 * mask_BW.sum(-1)).ceil()[:, None, None]
    filler = tuple(tokenizer.encode(" _", add_special_tokens=False))
    return views_as_prompts(hide(batch, hidden, "replace", (filler,)))[:count], builder.answer_words


def measure(model: str, backend: str, batches: Sequence[int], seconds: float, folder: Path) -> None:
    """One process: JSON lines on stdout, the answers to the smallest batch beside the model."""
    import torch

    from afa_llm.config_running import Lora, Model, Training
    from afa_llm.models.adapters import attach_lora, load_base, load_tokenizer, model_location, save_adapter
    from afa_llm.models.decoder import Decoder
    from afa_llm.rollouts.generator import ALONE, TransformersGenerator
    from afa_llm.training.engine import PlainEngine

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = model_location("builtin:pocket") if model == "pocket" else str(llama100m(folder / "llama100m"))
    settings = Model(path=where, quantization="none", dtype="float32")
    tokenizer = load_tokenizer(settings)
    adapted = attach_lora(load_base(settings, device), Lora(rank=8), seed=0, gradient_checkpointing=False)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=draw))
    decoder = Decoder(adapted, (len(adapted.get_base_model().model.layers) - 1,), tokenizer.pad_token_id)
    own = TransformersGenerator(decoder, 64)
    generator: Any = own
    empty: Callable[[], None] = lambda: None  # noqa: E731
    close: Callable[[], None] = empty
    extra: dict[str, float] = {}
    if backend != "transformers":
        from afa_llm.rollouts.delivery import Limits
        from afa_llm.rollouts.engine_process import EngineLaunch
        from afa_llm.rollouts.engine_service import EngineService
        from afa_llm.rollouts.vllm_local import LocalEngine

        modules = tuple(sorted({name.split(".")[-1] for name in adapted.peft_config["default"].target_modules}))
        cached = backend == "vllm_cached"
        engine = LocalEngine(EngineLaunch(sys.executable, where, None, "float32", 512, 8, modules, cached))
        service = EngineService(engine, ALONE, [0], lambda _: None)
        close = service.close
        began = time.perf_counter()
        service.begin()
        extra["start_seconds"] = time.perf_counter() - began
        probe, answers = masked_prompts(tokenizer, 16)
        service.connect(
            own, decoder.base, decoder.answering, lambda f: save_adapter(adapted, f), folder / backend, probe, answers,
            Limits(),
        )  # fmt: skip
        logged = [service.deliver(version) for version in (1, 2, 3)]
        extra["sync_seconds"] = sorted(each["sync_seconds"] for each in logged)[1]
        extra["delivery_gap"] = logged[-1]["delivery_gap"]
        generator, empty = service.generator, lambda: engine._llm.reset_prefix_cache()
    try:
        prompts, answers = masked_prompts(tokenizer, max(batches))
        length = sum(map(len, prompts)) / len(prompts)
        generator.answer(prompts[:8], answers)  # first use
        rate = 0.0
        for batch in sorted(batches):
            if rate and batch / rate > seconds:
                line = {"left_out": f"about {batch / rate:.0f} s at {rate:.0f} prompts per second"}
            else:
                empty()
                began, busy = time.perf_counter(), time.process_time()
                found = generator.answer(prompts[:batch], answers).label_logprob_NC
                rate, busy = batch / (time.perf_counter() - began), time.process_time() - busy
                line = {"prompts_per_second": rate, "prompts_per_cpu_second": batch / busy, "tokens_a_prompt": length}
                line |= extra
                if batch == min(batches):
                    torch.save(found, folder / f"{model}_{backend}.pt")
                    line["seconds_of_a_step"] = step_seconds(
                        decoder, PlainEngine(adapted, Training()), prompts, answers
                    )
            print(json.dumps({"model": model, "backend": backend, "batch": batch, **line}), flush=True)
    finally:
        close()


def step_seconds(decoder: Any, engine: Any, prompts: Sequence[Sequence[int]], answers: Any) -> float:
    """Forward and backward of 16 clean prompts and the reading of their 64 masked ones: a round but for the answers."""
    import torch

    from afa_llm.rollouts.generator import view_of

    clean = view_of(prompts[0:64:4], decoder.pad_token_id, decoder.device)
    masked = view_of(prompts[:64], decoder.pad_token_id, decoder.device)
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    began = clock()
    with decoder.answering():
        decoder.read(masked, answers)
    decoder.model.train()
    engine.backward(-decoder.read(clean, answers).label_logprob_BC[:, 0].mean())
    decoder.model.eval()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def table(lines: Sequence[dict[str, Any]], folder: Path) -> str:
    """Prompts per second, ratio to transformers, sync, share of a round of 64 masked prompts, gap of the answers.

    Without a GPU seconds are those of the processor: a machine that others use too changes them less.
    """
    import torch

    unit = "prompts_per_second" if torch.cuda.is_available() else "prompts_per_cpu_second"
    rows = [
        "| model | prompts | transformers, a second | vLLM, prefixes cached | vLLM, not cached |",
        "|---|---|---|---|---|",
    ]
    rate = {(x["model"], x["backend"], x["batch"]): x.get(unit) for x in lines}
    for model, batch in dict.fromkeys((x["model"], x["batch"]) for x in lines):
        peer = rate.get((model, "transformers", batch))
        cells = [f"{peer:.1f}" if peer else "left out"]
        for backend in BACKENDS[1:]:
            own = rate.get((model, backend, batch))
            ratio = f" (× {own / peer:.2f})" if own and peer else ""
            cells.append(f"{own:.1f}{ratio}" if own else "left out")
        rows.append(f"| {model} | {batch} | " + " | ".join(cells) + " |")
    for model in dict.fromkeys(x["model"] for x in lines):
        for backend in BACKENDS:
            first = next((x for x in lines if (x["model"], x["backend"]) == (model, backend)), None)
            if first is None or unit not in first:
                continue
            answers, step = first["batch"] / first[unit], first["seconds_of_a_step"]
            sync = first.get("sync_seconds", 0.0)
            ours, theirs = (torch.load(folder / f"{model}_{b}.pt") for b in (backend, "transformers"))
            rows.append(
                f"{model}, {backend}: of a round ({first['batch']} masked prompts) answers take "
                f"{answers / (answers + sync + step):.0%} ({answers:.2f} s), sync {sync / (answers + sync + step):.1%} "
                f"({sync * 1000:.0f} ms), the trainer's passes {step:.2f} s; answers differ by at most "
                f"{float((ours - theirs).abs().max()):.1e} nats"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["pocket", "llama100m"], choices=("pocket", "llama100m"))
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256, 1024, 4096])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS, metavar=("MODEL", "BACKEND", "FOLDER"))
    options = parser.parse_args()
    if options.one:
        model, backend, folder = options.one
        measure(model, backend, options.batches, options.seconds, Path(folder))
        return
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            for backend in BACKENDS:
                lines += run_one(model, backend, Path(folder), options)
        print(table(lines, Path(folder)))


def run_one(model: str, backend: str, folder: Path, options: Any) -> list[dict[str, Any]]:
    batches = [str(batch) for batch in options.batches]
    command = [sys.executable, __file__, "--one", model, backend, str(folder), "--batches", *batches]
    environment = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", **os.environ}
    done = subprocess.run(
        [*command, "--seconds", str(options.seconds)], stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"model"')]
    for line in lines:
        text = json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()})
        print(text, flush=True)
        if options.out:
            with options.out.open("a") as out:
                out.write(text + "\n")
    return lines


if __name__ == "__main__":
    main()
