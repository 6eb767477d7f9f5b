"""The peer of large_model.py: cross-entropy on the answer word with transformers' Trainer and peft, NF4.

    python benchmarks/large_model_peer.py MODEL REVIEWS [--steps 10] [--reviews 32] [--micro 16]

Prints one JSON line: tokens and reviews a second, seconds of a step (median after the third), peak memory of the GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

LEARNING_RATE, RANK, ALPHA = 1e-4, 16, 32


def prompts(model: Path, reviews: Path) -> tuple[list[list[int]], object]:
    """Token ids of each review's prompt with its answer word at the end, as a user of the peer would write it."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [json.loads(line) for line in reviews.read_text().splitlines()]
    words = (" negative", " positive")
    return [tokenizer(f"Review: {r['text']}\nSentiment:{words[r['label']]}")["input_ids"] for r in rows], tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model and its tokenizer")
    parser.add_argument("data", type=Path, help="reviews, JSON lines with text and label")
    for name, default in (("steps", 10), ("reviews", 32), ("micro", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    ids, tokenizer = prompts(args.model, args.data)
    length = max(map(len, ids))
    pad = tokenizer.pad_token_id

    def row(tokens: list[int]) -> dict[str, list[int]]:
        n = length - len(tokens)
        return {
            "input_ids": [pad] * n + tokens,
            "attention_mask": [0] * n + [1] * len(tokens),
            "labels": [-100] * (length - 1) + tokens[-1:],
        }

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        args.model,
        quantization_config=quantization,
        dtype=torch.bfloat16,
        device_map={"": 0 if on_gpu else "cpu"},
    )
    model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    model = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            times.append(-now())

        def on_step_end(self, *_: object, **__: object) -> None:
            times[-1] += now()

    def now() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    settings = TrainingArguments(
        output_dir=str(args.data.parent / "peer"), per_device_train_batch_size=args.micro,
        gradient_accumulation_steps=args.reviews // args.micro, max_steps=args.steps, learning_rate=LEARNING_RATE,
        bf16=True,
        use_cpu=not on_gpu, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False},
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=settings, train_dataset=[row(tokens) for tokens in ids], callbacks=[Clock()]).train()
    step = statistics.median(times[3:] or times)
    print(
        json.dumps(
            {
                "tokens_per_second": round(args.reviews * statistics.mean(map(len, ids)) / step, 1),
                "reviews_per_second": round(args.reviews / step, 2),
                "step_seconds": round(step, 3),
                "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
            }
        )
    )


if __name__ == "__main__":
    main()
