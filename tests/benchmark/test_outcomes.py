"""What is read from a finished cell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_matrix import TEMPLATES, write_fake_matrix

from afa_llm.benchmark.outcomes import read_outcome
from afa_llm.errors import AfaError
from afa_llm.evaluation.json_files import answers_path
from afa_llm.evaluation.prompted_sentiment import read_items


def test_a_cell_of_another_kind_is_refused(tmp_path: Path) -> None:
    _, cells = write_fake_matrix(tmp_path, seeds=(0,), reviews=12, only=["films/base/seed0", "films/ce/seed0"])
    cell = next(c for c in cells if c.arm == "base")
    trained = next(c for c in cells if c.arm == "ce")
    (cell.folder / "results.json").write_text((trained.folder / "results.json").read_text())
    with pytest.raises(AfaError, match="is no prompted cell"):
        read_outcome(cell)


def test_pairs_in_order_are_those_of_the_answers(tmp_path: Path) -> None:
    """Of the answers themselves, as AUROC is; results.json may be of before either was written."""
    _, cells = write_fake_matrix(tmp_path, seeds=(0,), reviews=40, only=["films/afa/seed0"])
    cell = next(cell for cell in cells if cell.name == "films/afa/seed0")
    assert "pair_order" not in read_outcome(cell).final["films_dev"].metrics
    template = json.loads((cell.folder / "results.json").read_text())["train_template"]
    path = answers_path(cell.folder, "films_dev", template, "after")
    rows = [json.loads(line) | {"pair": f"p{n // 2}"} for n, line in enumerate(path.read_text().splitlines())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    order = [
        float((one["probability"]["none"][1] > other["probability"]["none"][1]) == (one["label"] > other["label"]))
        for one, other in zip(rows[::2], rows[1::2], strict=True)
        if one["label"] != other["label"]
    ]
    assert 5 < len(order) < 20
    assert read_outcome(cell).final["films_dev"].metrics["pair_order"] == pytest.approx(sum(order) / len(order))


def test_a_behavioural_test_is_no_group(tmp_path: Path) -> None:
    """CheckList's hardest test was told as the accuracy of the worst group, though most don't ask for the label."""
    _, cells = write_fake_matrix(tmp_path, seeds=(0,), reviews=12, only=["films/afa/seed0"])
    cell = next(cell for cell in cells if cell.name == "films/afa/seed0")
    results = json.loads((cell.folder / "results.json").read_text())
    found = []
    for groups in ({"a": 0.7, "INV names": 0.1, "MFT negated": 0.0}, {"INV names": 0.1}):
        for row in results["scores"]:
            row["after"]["group_accuracy"] = {name: {"value": value} for name, value in groups.items()}
        (cell.folder / "results.json").write_text(json.dumps(results))
        found.append(read_outcome(cell).final["films_dev"].metrics.get("worst_group"))
    assert found == [0.7, None]


def test_how_sure_a_cell_was_is_the_mean_over_templates(tmp_path: Path) -> None:
    _, cells = write_fake_matrix(tmp_path, seeds=(0,), reviews=5, only=["films/afa/seed0"])
    cell = next(cell for cell in cells if cell.name == "films/afa/seed0")
    answers = read_outcome(cell).final["films_dev"].answers
    files = [read_items(answers_path(cell.folder, "films_dev", template, "after")) for template in TEMPLATES]
    expected = [np.mean([item.probability["none"][item.label] for item in of]) for of in zip(*files, strict=True)]
    assert list(answers.right) == [item.example_id for item in files[0]]
    assert answers.sure_N == pytest.approx(expected)
