"""Pretrain the pocket model: a small Llama-architecture decoder of film reviews, on CPU or GPU.

    python tools/pretrain_pocket.py --reviews DIR --out DIR [--tokens 26e6] [--threads 2] [--start-from MODEL]

DIR holds `train.jsonl[.gz]` (text, label 0/1, stars 1..10, id) and `unsup.jsonl[.gz]` (text, id), the Large Movie
Review Dataset as one JSON object a line; ids listed in `*_exclude_ids.txt` beside them are left out.

The labelled reviews are dressed with natural endings (a verdict, a rating, a sentiment line), whole and as excerpts of
one to three sentences, so that a prompt means something to the model. Nothing else of sentiment data is read: no word
list, no other data set. Same seed, same threads, same machine: same weights. A killed run continues from its last
`state.pt` (our own file, loaded with weights_only=True). `--start-from` goes on from a finished model with its
tokenizer, on the windows that it hasn't read yet, at half the peak rate.

Legend: B windows, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

UNK, BOS, EOS, PAD = 0, 1, 2, 3
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
VOCABULARY, WINDOW, BATCH = 4096, 256, 16
VALIDATION_WINDOWS = 128  # a multiple of BATCH: the compiled step sees one shape only
PEAK_LR, CONTINUED_PEAK_LR, WARMUP_STEPS, FINAL_LR_SHARE = 2e-3, 1e-3, 100, 0.05

VERDICTS = {
    1: [" great", " good", " excellent", " wonderful", " fantastic"],
    0: [" terrible", " bad", " awful", " boring", " horrible"],
}
SENTIMENT = {1: " positive", 0: " negative"}


def read_rows(folder: Path, stem: str) -> list[dict]:
    """Rows of `stem.jsonl` or `stem.jsonl.gz` without the excluded ids."""
    path = next(p for p in (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz") if p.exists())
    excluded_file = folder / f"{stem}_exclude_ids.txt"
    excluded = set(excluded_file.read_text().split()) if excluded_file.exists() else set()
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["id"] not in excluded]


def clean(text: str) -> str:
    return re.sub(r"\n{2,}", "\n", text.replace("<br />", "\n")).strip()


def treebank_style(text: str) -> str:
    """Lower case with punctuation set apart, the form in which many sentence-level data sets come."""
    return re.sub(r"\s+", " ", re.sub(r"([.,!?;:()\"]|n't|'\w+)", r" \1 ", text.lower())).strip()


def dress(text: str, row: dict, rng: random.Random) -> str:
    """One natural ending after the text, from the reviewer's own rating."""
    label, draw = row["label"], rng.random()
    if draw < 0.30:
        return f"Review: {text}\nSentiment:{SENTIMENT[label]}"
    if draw < 0.50:
        return f"{text}\nOverall, it was{rng.choice(VERDICTS[label])}."
    if draw < 0.65:
        return f"{text}\nIs this review positive or negative? It is{SENTIMENT[label]}."
    if draw < 0.80:
        return f"{text}\nRating: {row['stars']}/10"
    if draw < 0.90:
        return f"{text}\nIn one word:{rng.choice(VERDICTS[label])}"
    return text


def excerpt(text: str, rng: random.Random) -> str:
    """One to three neighbouring sentences, half of the time the last ones, where verdicts stand."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text.replace("\n", " ")) if 15 < len(s) < 300]
    if not sentences:
        return text[:300]
    count = rng.randint(1, 3)
    start = max(0, len(sentences) - count) if rng.random() < 0.5 else rng.randrange(len(sentences))
    chosen = " ".join(sentences[start : start + count])
    return treebank_style(chosen) if rng.random() < 0.4 else chosen


def documents(folder: Path, seed: int) -> list[str]:
    """Unlabelled reviews once, labelled ones twice (dressed anew) and five dressed excerpts of each, shuffled."""
    rng = random.Random(seed)
    documents = [clean(row["text"]) for row in read_rows(folder, "unsup")]
    rng.shuffle(documents)
    documents = documents[: len(documents) // 2]
    for row in read_rows(folder, "train"):
        text = clean(row["text"])
        documents += [dress(text, row, rng) for _ in range(2)]
        documents += [dress(excerpt(text, rng), row, rng) for _ in range(5)]
    rng.shuffle(documents)
    return documents


def train_tokenizer(corpus: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


def encode(tokenizer: Tokenizer, corpus: list[str]) -> np.ndarray:
    """All documents as one stream of ids, each `<s> … </s>`."""
    parts = []
    for start in range(0, len(corpus), 2000):
        for encoding in tokenizer.encode_batch(corpus[start : start + 2000]):
            parts.append(np.array([*encoding.ids, EOS], dtype=np.uint16))
    return np.concatenate(parts)


def bytes_of_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """UTF-8 bytes of each id (byte-level BPE spells one byte per character); special tokens count none."""
    lengths = np.zeros(VOCABULARY)
    for piece, index in tokenizer.get_vocab().items():
        lengths[index] = 0 if piece in SPECIAL else len(piece)
    return lengths


def batches(stream: np.ndarray, seed: int) -> Iterator[torch.Tensor]:
    """Windows [B, T+1] in an order drawn anew each epoch."""
    starts = (len(stream) - 1) // WINDOW
    epoch = 0
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(starts)
        for first in range(0, starts - BATCH + 1, BATCH):
            rows = [stream[k * WINDOW : k * WINDOW + WINDOW + 1] for k in order[first : first + BATCH]]
            yield torch.from_numpy(np.stack(rows).astype(np.int64))
        epoch += 1


def learning_rate(step: int, steps: int, peak: float) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)


def build(device: str, start_from: Path | None) -> LlamaForCausalLM:
    # Eager attention compiles to fewer passes than CPU flash attention at 256 tokens: 3.1k against 2.8k tokens/s.
    attention = "eager" if device == "cpu" else "sdpa"
    if start_from:
        found = LlamaForCausalLM.from_pretrained(start_from, dtype=torch.float32, attn_implementation=attention)
        return found.to(device)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    config._attn_implementation = attention
    return LlamaForCausalLM(config).to(device)


def make_loss(model: LlamaForCausalLM, device: str):
    def loss(window_BT: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            logits_BTV = model(input_ids=window_BT[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits_BTV.float().flatten(0, 1), window_BT[:, 1:].flatten())

    return torch.compile(loss, dynamic=False)


def validate(loss, stream: np.ndarray, byte_lengths: np.ndarray, device: str) -> tuple[float, float]:
    """(nats per token, bits per byte) over the held-out windows."""
    total, targets = 0.0, 0
    with torch.no_grad():
        for first in range(0, VALIDATION_WINDOWS, BATCH):
            rows = [stream[k * WINDOW : k * WINDOW + WINDOW + 1] for k in range(first, first + BATCH)]
            window_BT = torch.from_numpy(np.stack(rows).astype(np.int64))
            total += loss(window_BT.to(device)).item() * BATCH * WINDOW
            targets += BATCH * WINDOW
    spelled = byte_lengths[stream[1 : targets + 1]].sum()
    return total / targets, total / math.log(2) / spelled


def prepare(args: argparse.Namespace) -> tuple[Tokenizer, np.ndarray]:
    """Tokenizer and stream, made once and kept in the work folder."""
    tokenizer_file, stream_file = args.work / "tokenizer.json", args.work / "stream.npy"
    if not stream_file.exists():
        corpus = documents(args.reviews, args.seed)
        if args.start_from:
            tokenizer = Tokenizer.from_file(str(args.start_from / "tokenizer.json"))
        else:
            tokenizer = train_tokenizer(corpus[:20_000])
        tokenizer.save(str(tokenizer_file))
        np.save(args.work / "stream.partial.npy", encode(tokenizer, corpus))
        (args.work / "stream.partial.npy").rename(stream_file)
    return Tokenizer.from_file(str(tokenizer_file)), np.load(stream_file)


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path, facts: dict) -> None:
    model.to(torch.bfloat16).save_pretrained(out)
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", model_max_length=1024, **names)
    fast.save_pretrained(out)
    (out / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, required=True, help="folder with train.jsonl[.gz] and unsup.jsonl[.gz]")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--work", type=Path, default=Path("pretraining"), help="folder for stream and checkpoint")
    parser.add_argument("--tokens", type=float, default=26e6, help="tokens to train on")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", type=Path, help="finished model to train further (same --seed)")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    tokenizer, stream = prepare(args)
    held_out = VALIDATION_WINDOWS * WINDOW + 1
    validation, training = stream[-held_out:], stream[:-held_out]
    model = build(device, args.start_from)
    peak, read_before = PEAK_LR, 0
    if args.start_from:
        before = json.loads((args.start_from / "pretraining.json").read_text())
        peak, read_before = CONTINUED_PEAK_LR, before["tokens_seen"]
    loss = make_loss(model, device)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)
    steps = math.ceil(args.tokens / (BATCH * WINDOW))
    done, state_file = 0, args.work / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    print(f"{len(training):,} tokens a pass, {steps} steps, from step {done}", flush=True)

    source, smooth, began, first = batches(training, args.seed), None, time.time(), done
    for _ in range(read_before // (BATCH * WINDOW) + done):
        next(source)
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        value = loss(next(source).to(device))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = value.item() if smooth is None else 0.98 * smooth + 0.02 * value.item()
        if not math.isfinite(smooth):
            raise SystemExit(f"step {step}: the loss is not finite")
        if (step + 1) % 50 == 0:
            rate = (step + 1 - first) * BATCH * WINDOW / (time.time() - began)
            print(f"step {step + 1}/{steps} loss {smooth:.3f} {rate:.0f} tokens/s", flush=True)
        if (step + 1) % 250 == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, args.work / "state.partial.pt")
            (args.work / "state.partial.pt").rename(state_file)

    nats, bits_per_byte = validate(loss, validation, bytes_of_tokens(tokenizer), device)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_seen": read_before + steps * BATCH * WINDOW,
        "tokens_of_one_pass": len(training),
        "validation_nats_per_token": round(nats, 4),
        "validation_bits_per_byte": round(bits_per_byte, 4),
        "seed": args.seed,
        "torch": torch.__version__,
    }
    export(model, tokenizer, args.out, facts)
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
