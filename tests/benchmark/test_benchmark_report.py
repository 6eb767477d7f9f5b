"""benchmark.json, the tables and the page of a matrix with drawn numbers."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_matrix import write_fake_matrix
from hand_matrix import hand_matrix, only
from sklearn.metrics import roc_auc_score

from afa_llm.benchmark.report import write_benchmark
from afa_llm.benchmark.results import SCHEMA, _means
from afa_llm.benchmark.settings import DataSet
from afa_llm.evaluation.json_files import answers_path
from afa_llm.evaluation.prompted_sentiment import read_items


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    benchmark, cells = write_fake_matrix(folder, seeds=(0, 1, 2), reviews=60, missing=("books/afa/seed2",))
    write_benchmark(benchmark, cells, folder / "fake")
    return folder / "fake"


@pytest.fixture(scope="module")
def content(place: Path) -> dict[str, Any]:
    return json.loads((place / "benchmark.json").read_text())


def paths(value: Any, prefix: str = "") -> set[str]:
    if f"{prefix}.*" in SCHEMA:
        return {f"{prefix}.*"}
    if prefix in SCHEMA:
        return {prefix}
    if isinstance(value, dict):
        return {p for key, inner in value.items() for p in paths(inner, f"{prefix}.{key}" if prefix else key)}
    if isinstance(value, list):
        return {p for inner in value for p in paths(inner, f"{prefix}[]")} or {f"{prefix}[]?"}
    return {prefix}


def page_text(place: Path) -> str:
    return re.sub(r"(<[^>]+>|\s)+", " ", (place / "report.html").read_text())


def test_every_entry_is_in_the_schema(content: dict[str, Any]) -> None:
    found = {path for path in paths(content) if not path.endswith("?")}
    assert found == set(SCHEMA)


def test_the_detectable_difference_stands_beside_every_comparison(place: Path, content: dict[str, Any]) -> None:
    """Beside accuracy's alone: a star of the focus stood there without it."""
    row = next(r for r in content["comparisons"] if (r["set"], r["arm"], r["metric"]) == ("films_dev", "afa", "auprc"))
    told = f"films_dev: AFA, AUPRC against rationales +{row['over_seeds']['value']:.3f}"
    assert f"{row['detectable']:.3f}" in page_text(place).partition(told)[2][:80]
    stars = (place / "tables" / "tests.tex").read_text()
    assert f"& {row['detectable']:.3f} " in stars.partition("films\\_dev: AFA, AUPRC")[2].splitlines()[0]


def test_means_and_differences_are_those_of_the_cells(place: Path, content: dict[str, Any]) -> None:
    def accuracy(arm: str, seed: int) -> float:
        results = json.loads((place / "films" / arm / f"seed{seed}" / "results.json").read_text())
        entry = results["headline"][0]
        return (entry["after"] or entry["before"])["value"]

    row = next(r for r in content["means"] if (r["set"], r["arm"], r["metric"]) == ("films_dev", "afa", "accuracy"))
    assert row["final"]["value"] == pytest.approx(sum(accuracy("afa", s) for s in range(3)) / 3)
    found = next(
        r for r in content["comparisons"] if (r["set"], r["arm"], r["metric"]) == ("films_dev", "afa", "accuracy")
    )
    differences = [accuracy("afa", s) - accuracy("ce", s) for s in range(3)]
    assert found["over_seeds"]["value"] == pytest.approx(sum(differences) / 3)
    assert found["over_reviews"]["value"] == pytest.approx(sum(differences) / 3)
    books = next(
        r for r in content["comparisons"] if (r["set"], r["arm"], r["metric"]) == ("books_dev", "afa", "accuracy")
    )
    assert books["over_seeds"]["count"] == 2
    average = next(r for r in content["averages"] if r["arm"] == "afa")
    assert average["over_seeds"]["count"] == 2  # the seeds that both sets have
    assert average["over_reviews"]["value"] == pytest.approx(average["over_seeds"]["value"])
    prompted = next(r for r in content["means"] if (r["arm"], r["metric"]) == ("base", "accuracy"))
    assert prompted["before"] is None and prompted["final"]["count"] == 3


def test_auroc_is_that_of_the_answers_under_the_template_trained_with(place: Path, content: dict[str, Any]) -> None:
    """Of the answers themselves, whatever results.json says of it: runs of before it was written there have it too."""

    def auroc_of(arm: str, seed: int) -> float:
        folder = place / "films" / arm / f"seed{seed}"
        template = json.loads((folder / "results.json").read_text())["train_template"]
        items = read_items(answers_path(folder, "films_dev", template, "after"))
        return float(roc_auc_score([item.label for item in items], [item.probability["none"][1] for item in items]))

    found = {arm: [auroc_of(arm, seed) for seed in range(3)] for arm in ("afa", "ce")}
    rows = {r["arm"]: r for r in content["means"] if (r["set"], r["metric"]) == ("films_dev", "auroc")}
    assert rows["afa"]["final"]["value"] == pytest.approx(sum(found["afa"]) / 3)
    assert 0.5 < rows["afa"]["before"]["value"] < rows["afa"]["final"]["value"]
    row = next(r for r in content["comparisons"] if (r["set"], r["arm"], r["metric"]) == ("films_dev", "afa", "auroc"))
    assert row["over_seeds"]["value"] == pytest.approx(sum(found["afa"]) / 3 - sum(found["ce"]) / 3)
    average = next(r for r in content["averages"] if r["arm"] == "afa")
    sets = [r for r in content["comparisons"] if (r["arm"], r["metric"]) == ("afa", "auroc")]
    assert average["auroc"]["count"] == 2 and len(sets) == 2
    assert average["auroc"]["value"] == pytest.approx(sum(r["over_seeds"]["value"] for r in sets) / 2, abs=0.02)
    assert " AUROC 0.5 is chance; whatever the threshold" in page_text(place)


def test_seeds_that_repeat_each_other_claim_nothing_and_leave_no_nan(tmp_path: Path) -> None:
    """Accuracy and the focus are still tested over reviews; of the other metrics nothing may be claimed."""
    benchmark, cells = write_fake_matrix(tmp_path, seeds=(0, 1), reviews=60)
    for cell in cells:
        if cell.seed == 1:
            shutil.rmtree(cell.folder)
            shutil.copytree(cell.folder.with_name("seed0"), cell.folder)
    write_benchmark(benchmark, cells, tmp_path / "fake")
    text = (tmp_path / "fake" / "benchmark.json").read_text()
    found = json.loads(text, parse_constant=pytest.fail)
    for row in found["comparisons"]:
        assert row["over_seeds"]["low"] is row["over_seeds"]["high"] is row["detectable_seeds"] is None
        if row["over_reviews"] is None:
            assert (row["stars"], row["p_value"]) == ("", None if row["over_seeds"]["value"] else 1.0)
    sure = [row for row in found["comparisons"] if row["stars"]]
    assert {"accuracy", "comprehensiveness"} < {row["metric"] for row in sure}
    assert all(row["p_value"] == row["p_reviews"] for row in sure)
    assert "macro_f1" in {row["metric"] for row in found["comparisons"] if row["over_reviews"] is None}
    assert not any(goal["shown"] for goal in found["goals"])
    page = page_text(tmp_path / "fake")
    assert not re.search(r"\bnan\b|\bNone\b", page)
    assert "±" not in page.replace("±: one seed", "").replace("± half", "")
    assert "the same for all 2 seeds" in page


def test_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    benchmark, cells = write_fake_matrix(tmp_path, seeds=(0,), reviews=20, same_name=True)
    write_benchmark(benchmark, cells, tmp_path / "fake")
    found = json.loads((tmp_path / "fake" / "benchmark.json").read_text())
    assert {row["set"] for row in found["means"]} == {"films/dev", "books/dev"}
    rows = [r for r in found["means"] if (r["arm"], r["metric"]) == ("afa", "accuracy")]
    assert len(rows) == 2


def test_a_data_set_is_called_by_its_title(tmp_path: Path) -> None:
    """The setting was taken and used nowhere."""
    benchmark, cells = write_fake_matrix(tmp_path, seeds=(0,), reviews=20)
    data_sets = benchmark.data_sets | {"films": DataSet(title="Film reviews & more")}
    write_benchmark(benchmark.model_copy(update={"data_sets": data_sets}), cells, tmp_path / "fake")
    page = (tmp_path / "fake" / "report.html").read_text()
    assert "<h3>Film reviews &amp; more</h3>" in page and "<h3>films</h3>" not in page
    assert "Film reviews &amp; more: AFA" in page
    assert r"Film reviews \& more: AFA" in (tmp_path / "fake" / "tables" / "budget.tex").read_text()


def test_goals(place: Path, content: dict[str, Any]) -> None:
    goals = {goal["name"]: goal for goal in content["goals"]}
    rows = [r for r in content["comparisons"] if (r["arm"], r["metric"]) == ("afa", "auprc")]
    assert goals["focus"]["value"]["count"] == 2  # the seeds whose cells are there on both sets
    assert goals["focus"]["reached"] == (goals["focus"]["value"]["value"] >= 0.5)
    assert goals["focus"]["value"]["value"] == pytest.approx(rows[0]["over_seeds"]["value"], abs=0.1)
    assert goals["elsewhere"]["value"] is None and goals["elsewhere"]["reached"] is None  # one of its sets is missing
    for name, wanted in (("at_films", "films_dev"), ("at_books", "books_dev")):  # by its data set, by its own name
        accuracy = {r["set"]: r for r in content["comparisons"] if (r["arm"], r["metric"]) == ("afa", "accuracy")}
        assert goals[name]["value"] == pytest.approx(accuracy[wanted]["over_seeds"])
    assert goals["later"]["unit"] == "percent"
    assert (goals["gap"]["at_least"], goals["gap"]["at_most"]) == (None, -0.01)
    rows = list(csv.DictReader(io.StringIO((place / "tables" / "goals.csv").read_text())))
    assert [(row["at_least"], row["at_most"]) for row in rows[:3]] == [("0.02", ""), ("0.5", ""), ("", "-0.01")]
    assert "Sufficiency gap of afa, difference to ce on all sets wanted at most −0.010, found" in page_text(place)


def test_the_page_holds_every_part_and_no_network(place: Path) -> None:
    text = (place / "report.html").read_text()
    words = re.sub(r"<[^>]+>|\s+", " ", text)
    for part in ("Accuracy", "Differences to LoRA, cross-entropy", "Every test", "Focus quality",
                 "Focus and word frequency", "Learning curves", "Where the two look", "Budget",
                 "1 of 24 cells are not finished"):  # fmt: skip
        assert part in words, part
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|img|iframe)|https?://|url\(|@import", text)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", words)
    assert text.count('class="many phase-line') >= 2 * 3 * 2


def test_the_gallery_names_its_columns_by_their_arms(place: Path) -> None:
    """Both were measured last, and a word's numbers were told as before and after."""
    text = (place / "report.html").read_text()
    gallery = text[text.index("Where the two look") : text.index('id="h-budget"')]
    hints = re.findall(r' title="(focus [^"]*)"', gallery)
    assert hints
    assert all(re.match(r"focus [0-9.]+ % LoRA, cross-entropy, [0-9.]+ % AFA", hint) for hint in hints)
    assert 'aria-label="review, AFA"' in gallery
    assert 'aria-label="review, after"' not in gallery


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    benchmark, cells = write_fake_matrix(tmp_path, seeds=(0,), reviews=30)
    hostile = "<script>alert(1)</script>"
    arm = benchmark.arms["afa"].model_copy(update={"title": hostile})
    benchmark = benchmark.model_copy(update={"arms": benchmark.arms | {"afa": arm}})
    write_benchmark(benchmark, cells, tmp_path / "fake")
    text = (tmp_path / "fake" / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "One seed has no interval" in text


def test_csv_holds_the_numbers_and_latex_the_table(place: Path, content: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO((place / "tables" / "comparisons.csv").read_text())))
    assert len(rows) == len(content["comparisons"])
    assert float(rows[0]["over_seeds_value"]) == content["comparisons"][0]["over_seeds"]["value"]
    latex = (place / "tables" / "accuracy.tex").read_text()
    assert r"films\_dev" in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {2}
    assert len(body) == 1 + 4


def test_versions_are_those_of_the_cells(tmp_path: Path) -> None:
    """Not those of the machine that writes the report; where they differ, all are named."""
    benchmark, cells = write_fake_matrix(tmp_path, seeds=(0, 1), reviews=6)
    for cell in cells:
        path = cell.folder / "results.json"
        results = json.loads(path.read_text())
        torch = "2.11.0" if cell.seed else "2.12.0"
        results["run"]["versions"] = {"torch": torch, "peft": "0.99", "vllm": None}
        path.write_text(json.dumps(results))
    write_benchmark(benchmark, cells, tmp_path / "fake")
    found = json.loads((tmp_path / "fake" / "benchmark.json").read_text())["versions"]
    assert found == {"torch": "2.11.0 | 2.12.0", "peft": "0.99", "vllm": None}


@pytest.mark.parametrize(("start", "gains"), [((0.1, 0.2), (0.5, 0.5)), ((0.1, -0.2), None)])
def test_a_relative_gain_is_that_of_all_seeds_or_none(
    start: tuple[float, ...], gains: tuple[float, ...] | None
) -> None:
    """Seeds that began at or below 0 were left out without a word."""
    matrix = hand_matrix({("afa", seed): {"dev": only(comprehensiveness=1.5 * abs(x))} for seed, x in enumerate(start)})
    outcomes = {
        key: replace(outcome, before={"dev": only(comprehensiveness=start[key[2]])})
        for key, outcome in matrix.outcomes.items()
    }
    row = next(row for row in _means(replace(matrix, outcomes=outcomes)) if row["metric"] == "comprehensiveness")
    assert (row["relative_gain"] and row["relative_gain"].value) == (gains and pytest.approx(sum(gains) / 2))
    assert row["gain"].count == 2


def test_tables_of_a_set_that_is_no_longer_there_are_gone(tmp_path: Path) -> None:
    """They lay beside the new ones and looked like them; whatever else lies there stays."""
    benchmark, cells = write_fake_matrix(tmp_path, seeds=(0,), reviews=20)
    write_benchmark(benchmark, cells, tmp_path / "fake")
    folder = tmp_path / "fake" / "tables"
    names = {path.name for path in folder.iterdir()}
    assert {"focus_books_dev.tex", "goals.csv", "averages.csv"} < names
    (folder / "mine.tex").write_text("% mine\n")
    (folder / "mine.csv").write_text("a\n")
    films = [cell for cell in cells if cell.data_set == "films"]
    one = benchmark.model_copy(update={"data_sets": {"films": benchmark.data_sets["films"]}, "goals": {}})
    write_benchmark(one, films, tmp_path / "fake")
    left = {path.name for path in folder.iterdir()}
    assert {"mine.tex", "mine.csv", "focus_films_dev.tex", "means.csv"} < left
    assert not {"focus_books_dev.tex", "goals.csv", "averages.csv"} & left
