"""What reading the focus costs: forward + backward of a random Llama with SDPA alone, with captured rows, and eager.

Eager attention that returns its T×T matrices is what one would do without the capture.

    python benchmarks/attention_rows.py [--tokens 1024] [--hidden 512] [--layers 8] [--repeats 3]

Each variant runs in a process of its own, so that peak memory is its own. Prints one JSON line per variant: CPU or GPU
seconds of one pass (best of the repeats), peak memory in MiB above the loaded model, and both as a ratio to SDPA.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

VARIANTS = ("sdpa", "rows", "eager")


def measure(variant: str, tokens: int, hidden: int, layers: int, repeats: int) -> dict[str, float]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from afa_llm.models import attention_capture

    torch.set_num_threads(1)
    torch.manual_seed(0)
    attention_capture.register()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        max_position_embeddings=tokens,
    )
    names = {"sdpa": "sdpa", "rows": attention_capture.CAPTURE, "eager": "eager"}
    model = LlamaForCausalLM._from_config(config, attn_implementation=names[variant]).to(device)
    ids_BT = torch.randint(0, 1024, (1, tokens), device=device)
    mask_BT = torch.ones_like(ids_BT)
    best, before = float("inf"), _memory(device)
    for _ in range(repeats):
        began = time.perf_counter()
        found = []
        if variant == "rows":
            request = attention_capture.RowRequest(frozenset(range(layers)), tokens - 1)
            output = model(ids_BT, attention_mask=mask_BT, use_cache=False, logits_to_keep=1, attention_rows=request)
            found = list(request.found.values())
            request.closed = True
        else:
            eager = variant == "eager"
            output = model(ids_BT, attention_mask=mask_BT, use_cache=False, logits_to_keep=1, output_attentions=eager)
            found = [matrix[:, :, -1] for matrix in output.attentions] if eager else []
        loss = output.logits.float().logsumexp(-1).sum()
        for row in found:
            loss = loss + row.square().sum()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return {"seconds": best, "mebibytes": _memory(device) - before}


def _memory(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 1024), ("hidden", 512), ("layers", 8), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = (options.tokens, options.hidden, options.layers, options.repeats)
    if options.variant:
        print(json.dumps(measure(options.variant, *sizes)))
        return
    reference: dict[str, float] = {}
    for variant in VARIANTS:
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        reference = reference or found
        ratios = {f"{name}_ratio": round(found[name] / reference[name], 2) for name in found}
        print(json.dumps({"variant": variant} | {k: round(v, 3) for k, v in found.items()} | ratios), flush=True)


if __name__ == "__main__":
    main()
