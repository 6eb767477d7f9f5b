"""A 7B-shaped decoder under the `deepspeed` launcher on one GPU: tokens and reviews a second, FLOP/s, peak memory.

    python benchmarks/large_model.py --folder FAST_DISK [--shape mistral-7b] [--steps 10] [--words 190] [--only zero3]

Random weights of a real config (no hub is needed; speed and memory don't depend on what the weights say), the packaged
tokenizer and planted reviews strung together to about `--words` words. Every cell is a process of its own:

    AFA under ZeRO-2, under ZeRO-3 and with the plain engine, cross-entropy alone under ZeRO-2, and as the peer
    transformers' Trainer with peft (cross-entropy; the same reviews, NF4, LoRA, batch and checkpointing).

Prints a JSON line for each. `tokens_per_second` counts the prompt tokens of the reviews, however often they were read;
`tflops` all passes of the round (two FLOPs for each weight and token, gradients of inputs once more, recomputation not
counted). `planned_gib` is what `afa plan` says of the same settings before anything is loaded. The last line gives each
cell's ratio to the peer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from large_model_peer import ALPHA, LEARNING_RATE, RANK, prompts

ROOT = Path(__file__).parents[1]
POCKET = ROOT / "afa_llm" / "assets" / "models" / "pocket"
SHAPES = {
    "mistral-7b": {  # Mistral-7B-v0.3
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768, "rope_theta": 1e6,
        "max_position_embeddings": 32768, "sliding_window": None,
    },
    "llama-1b": {  # Llama-3.2-1B
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
        "max_position_embeddings": 131072, "tie_word_embeddings": True,
    },
    "tiny": {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096, "max_position_embeddings": 2048,
    },
}  # fmt: skip
CROSS_ENTROPY = ["objective.policy_gradient_weight=0", "objective.masked_base_weight=0"]
CELLS = {
    "AFA, ZeRO-2": ["training.engine=deepspeed", "training.zero_stage=2"],
    "cross-entropy, ZeRO-2": ["training.engine=deepspeed", "training.zero_stage=2", *CROSS_ENTROPY],
    "peer: transformers Trainer": [],
    "AFA, ZeRO-3": ["training.engine=deepspeed", "training.zero_stage=3"],
    "AFA, one process": ["training.engine=plain"],
}
REVIEWS = "reviews.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the model (15 GB for 7B) and the runs lie")
    parser.add_argument("--shape", choices=SHAPES, default="mistral-7b")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--reviews", type=int, default=32, help="of one step")
    parser.add_argument("--micro", type=int, default=16, help="reviews of one pass")
    parser.add_argument("--words", type=int, default=190, help="of one review, about")
    parser.add_argument("--only", default="", help="cells with this in their name; several: a|b")
    parser.add_argument("--timeout", type=int, default=300, help="seconds of one cell")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    prepare(args)
    found: dict[str, dict] = {}
    for name, settings in CELLS.items():
        if any(part in name for part in args.only.split("|")):
            found[name] = run_peer(args) if name.startswith("peer") else run_afa(args, settings)
            print(json.dumps({"cell": name, "shape": args.shape} | found[name]), flush=True)
    reference = found.get("peer: transformers Trainer", {}).get("tokens_per_second")
    if reference:
        ratios = {
            name: round(c["tokens_per_second"] / reference, 3) for name, c in found.items() if "tokens_per_second" in c
        }
        print(json.dumps({"tokens_per_second as a ratio to the peer": ratios}))


def prepare(args: argparse.Namespace) -> None:
    """The model's and the reviews' files, once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from afa_llm.data.planted import DATA_SEED, SIZES, planted_examples

    folder = args.folder / args.shape
    if not (folder / "done").exists():
        began = time.perf_counter()
        shape = dict(SHAPES[args.shape])
        config = AutoConfig.for_model(shape.pop("model_type"), **shape, bos_token_id=1, eos_token_id=2, pad_token_id=3)
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(POCKET / file, folder)
        (folder / "done").touch()
        size = sum(p.numel() for p in model.parameters())
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # this process lives on beside the cells
        print(json.dumps({"parameters": size, "made_in_seconds": round(time.perf_counter() - began, 1)}), flush=True)
    texts: list[tuple[str, int]] = []
    for label in (0, 1):
        words: list[str] = []
        for example in (e for e in planted_examples("train", SIZES["train"], DATA_SEED) if e.label == label):
            words += example.text.split()
            if len(words) >= args.words:
                texts.append((" ".join(words[: args.words]), label))
                words = []
    with (args.folder / REVIEWS).open("w") as file:
        for text, label in texts:
            file.write(json.dumps({"text": text, "label": label}) + "\n")


def settings_of(args: argparse.Namespace, settings: list[str]) -> list[str]:
    return [
        f"model.path={args.folder / args.shape}",
        "model.quantization=nf4",
        "model.dtype=bfloat16",
        "model.gradient_checkpointing=true",
        "attention.layers=all",  # a random model knows nothing in any layer
        f"data.train.path={args.folder / REVIEWS}",
        "data.evaluation=[]",
        f"data.max_tokens={max(64, 2 * args.words)}",
        f"lora.rank={RANK}",
        f"lora.alpha={ALPHA}",
        f"training.max_steps={args.steps}",
        "training.epochs=1000",
        f"training.reviews_per_step={args.reviews}",
        f"training.micro_batch_size={args.micro}",
        f"training.learning_rate={LEARNING_RATE}",
        "training.checkpoint_every=0",
        "adversary.warmup_rounds=2",
        *settings,
    ]


def run_afa(args: argparse.Namespace, settings: list[str]) -> dict:
    from afa_llm.training.distributed import free_port

    settings, program = settings_of(args, settings), [sys.executable, "-m", "afa_llm"]
    if "training.engine=deepspeed" in settings:
        program = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "1"]
        program += ["--master_port", str(free_port()), "--module", "afa_llm"]
    name = "cell_" + "".join(c for c in "_".join(settings[-4:]) if c.isalnum() or c == "_")[-80:]
    command = [*program, "train", *settings, f"run.name={name}", f"run.output_dir={args.folder}", "run.overwrite=true"]
    ended, seconds = call(args, command)
    if ended is None or ended.returncode:
        return failure(args, ended)
    rows = [json.loads(line) for line in (args.folder / name / "metrics.jsonl").read_text().splitlines()]
    training = json.loads((args.folder / name / "results.json").read_text())["training"]
    step = statistics.median(row["step_seconds"] for row in rows[3:] or rows)
    plan = subprocess.run(
        [sys.executable, "-m", "afa_llm", "plan", *settings, "--json", "--gpu-memory", "80"],
        cwd=args.folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    planned = json.loads(plan.stdout)["phases"]["training"] / 2**30 if plan.stdout.startswith("{") else None
    return {
        "tokens_per_second": round(args.reviews * review_tokens(args) / step, 1),
        "reviews_per_second": round(args.reviews / step, 2),
        "step_seconds": round(step, 3),
        "tflops": round(training["flops"] / training["steps"] / step / 1e12, 1),
        "peak_gib": round(rows[-1]["peak_memory_gib"], 2),
        "planned_gib": planned and round(planned, 2),
        "task_loss": [round(rows[0]["task_loss"], 3), round(rows[-1]["task_loss"], 3)],
        "all_seconds": round(seconds, 1),
    }


def run_peer(args: argparse.Namespace) -> dict:
    numbers = [f"--{name}={getattr(args, name)}" for name in ("steps", "reviews", "micro")]
    program = [sys.executable, str(ROOT / "benchmarks" / "large_model_peer.py")]
    ended, seconds = call(args, [*program, str(args.folder / args.shape), str(args.folder / REVIEWS), *numbers])
    if ended is None or ended.returncode:
        return failure(args, ended)
    return json.loads(ended.stdout.splitlines()[-1]) | {"all_seconds": round(seconds, 1)}


def call(args: argparse.Namespace, command: list[str]) -> tuple[subprocess.CompletedProcess[str] | None, float]:
    began = time.perf_counter()
    try:
        ended = subprocess.run(
            command,
            cwd=args.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=args.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        ended = None
    return ended, time.perf_counter() - began


def failure(args: argparse.Namespace, ended: subprocess.CompletedProcess[str] | None) -> dict:
    said = f"no end after {args.timeout} s" if ended is None else (ended.stdout[-1500:] + ended.stderr[-2500:])
    return {"works": False, "said": said}


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def review_tokens(args: argparse.Namespace) -> float:
    return statistics.mean(len(ids) for ids in prompts(args.folder / args.shape, args.folder / REVIEWS)[0])


if __name__ == "__main__":
    main()
