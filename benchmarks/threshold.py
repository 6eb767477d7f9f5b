"""Is a gain in accuracy the threshold's? AUROC and share of positive answers of two arms, from a benchmark's files.

    python benchmarks/threshold.py runs/benchmark_transfer/sst2 --arms cross_entropy afa \
        --sets cr amazon_dev yelp_sentences_dev cebab_dev

Accuracy takes the label that is likelier than half. An arm that says "positive" more often gains on a set where the
other says it too seldom, without telling the classes apart any better; AUROC (the probability that a positive review
has a higher p(positive) than a negative one) has no threshold. Two classes, answers after training, the template of the
answers' file; cells pair by seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from afa_llm.benchmark.statistics import over_seeds
from afa_llm.evaluation.json_files import answers_path
from afa_llm.evaluation.prompted_sentiment import read_items
from afa_llm.method.detection_scores import auroc


def scores(cell: Path, name: str, template: str) -> tuple[float, float, float]:
    """(AUROC, share answered positive, share that is positive) of one cell on one set."""
    items = read_items(answers_path(cell, name, template, "after"))
    label_N = torch.tensor([item.label for item in items])
    positive_N = torch.tensor([item.probability["none"][1] for item in items], dtype=torch.float64)
    found = auroc(positive_N[label_N == 1], positive_N[label_N == 0])
    return found, float((positive_N > 0.5).double().mean()), float(label_N.double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a benchmark's folder of one data set: it holds ARM/seedK")
    parser.add_argument("--arms", nargs=2, default=["cross_entropy", "afa"], metavar=("REFERENCE", "ARM"))
    parser.add_argument("--sets", nargs="+", required=True, help="names of evaluation sets")
    parser.add_argument("--template", default="review_sentiment")
    options = parser.parse_args()
    seeds = sorted({cell.name for cell in (options.folder / options.arms[0]).glob("seed*") if cell.is_dir()})
    print("| set | positive | said positive | AUROC | difference of AUROC |\n|---|---|---|---|---|")
    together = [0.0] * len(seeds)
    for name in options.sets:
        old, new = (
            [scores(options.folder / arm / seed, name, options.template) for seed in seeds] for arm in options.arms
        )
        gain = [b[0] - a[0] for a, b in zip(old, new, strict=True)]
        together = [total + each / len(options.sets) for total, each in zip(together, gain, strict=True)]
        said, ranked = ([sum(row[k] for row in rows) / len(rows) for rows in (old, new)] for k in (1, 0))
        positive, answered = f"{old[0][2]:.3f}", f"{said[0]:.3f} / {said[1]:.3f}"
        print(f"| {name} | {positive} | {answered} | {ranked[0]:.4f} / {ranked[1]:.4f} | {_interval(gain)} |")
    print(f"| all | | | | {_interval(together)} |")


def _interval(values: list[float]) -> str:
    found = over_seeds(values, 0.95)
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


if __name__ == "__main__":
    main()
