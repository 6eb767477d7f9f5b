"""A benchmark's folder as its cells would leave it, from random numbers: for tests of the report and to look at.

`python tests/benchmark/fake_matrix.py FOLDER` leaves one behind. No number in it was measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))

from fake_run import COMMON, TELLING, write_fake_run

from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.loading import load_benchmark, plan_cells
from afa_llm.benchmark.report import write_benchmark
from afa_llm.benchmark.settings import Benchmark
from afa_llm.evaluation.json_files import word_counts_path, write_json

BENCHMARK = """
name: fake
reference: ce
arms:
  base: {kind: prompted, title: Prompted base}
  ce: {title: "LoRA, cross-entropy"}
  masks: {title: "LoRA, random masks"}
  afa: {title: "AFA"}
data_sets:
  films: {settings: {data: {evaluation: [{name: films_dev}]}}}
  books: {settings: {data: {evaluation: [{name: books_dev}, {name: songs_dev}]}}}  # whose cells have no songs_dev
goals:
  gain: {arm: afa, against: ce, at_least: 0.02}
  focus: {arm: afa, against: ce, metric: auprc, at_least: 0.5}
  gap: {arm: afa, against: ce, metric: sufficiency, at_most: -0.01}
  elsewhere: {arm: afa, at_least: 0, sets: [films_dev, songs_dev]}
  at_films: {arm: afa, against: ce, at_least: 0, sets: [films]}
  at_books: {arm: afa, against: ce, at_least: 0, sets: [books_dev]}
  later: {arm: afa, at_least: 0.126, relative: true}
"""
TEMPLATES = ("review_sentiment", "overall_it_was")
SKILL = {"ce": (1.2, 0.6), "masks": (1.22, 0.7), "afa": (1.75, 1.9)}


def write_fake_matrix(
    place: Path,
    seeds: Sequence[int] = (0, 1, 2),
    reviews: int = 150,
    missing: Sequence[str] = (),
    same_name: bool = False,
    only: Sequence[str] | None = None,
) -> tuple[Benchmark, list[Cell]]:
    """The cells but `missing` ones, or `only` some, and what was asked for."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "fake.yaml").write_text(BENCHMARK)
    benchmark = load_benchmark(str(place / "fake.yaml"), [f"seeds={list(seeds)}", f"output_dir={place}"])
    cells = plan_cells(benchmark, str(place / "fake.yaml"))
    for cell in cells:
        if cell.name in missing or (only is not None and cell.name not in only):
            continue
        tuned, sharpness = SKILL.get(cell.arm, (1.0, 0.3))
        name = "dev" if same_name else f"{cell.data_set}_dev"
        write_fake_run(
            cell.folder, data_sets=(name,), reviews=reviews, templates=TEMPLATES,
            trained=cell.kind == "trained", steps=60, draw=cell.seed, tuned=tuned + 0.02 * cell.seed,
            sharpness=sharpness,
        )  # fmt: skip
        words = {word: 900 - 40 * place for place, word in enumerate(COMMON)}
        words |= {word: 1 + len(word) for of_label in TELLING.values() for word in of_label}
        write_json(word_counts_path(cell.folder), words)
        results = json.loads((cell.folder / "results.json").read_text())
        if results["training"]:
            results["training"] |= {"forward_tokens": 1e6, "backward_tokens": 2e5, "flops": 1e13}
            (cell.folder / "results.json").write_text(json.dumps(results))
    return benchmark, cells


if __name__ == "__main__":
    asked, planned = write_fake_matrix(Path(sys.argv[1]), missing=("books/afa/seed2",))
    print(*write_benchmark(asked, planned, Path(sys.argv[1]) / "fake"), sep="\n")
