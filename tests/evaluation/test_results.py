"""results.json: every path is described, no NaN, and its numbers are those of the parts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import CALIBRATIONS, HOW, LABELS, TEMPLATES, answer_items, make_review, measure_focus, write_fake_run

from afa_llm.errors import AfaError
from afa_llm.evaluation.results import SCHEMA, Measured, Reading, RunFacts, build_results, config_digest

FACTS = RunFacts("r", {"b": 1, "a": {"x": float("nan")}}, 0, 1, "cpu", "s", "f", {"before": 1.0})
READING = Reading(LABELS, TEMPLATES[0], CALIBRATIONS, "none", HOW)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    folder = write_fake_run(tmp_path_factory.mktemp("run"), ("a", "b"), reviews=42, groups=True, suites=True)
    return json.loads((folder / "results.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def paths(value, at: str = "") -> set[str]:
    if isinstance(value, dict):
        return {path for key, item in value.items() for path in paths(item, f"{at}.{key}".lstrip("."))} or {at}
    if isinstance(value, list):
        return {path for item in value for path in paths(item, f"{at}[]")} or {at}
    return {at}


def test_every_path_is_described_and_every_description_is_used(results: dict) -> None:
    found = paths(results)
    described = {name.removesuffix(".*") for name in SCHEMA}
    undescribed = {
        path for path in found if not any(path == d or path.startswith((d + ".", d + "[")) for d in described)
    }
    unused = {d for d in described if not any(path == d or path.startswith((d + ".", d + "[")) for path in found)}
    assert (undescribed, unused) == (set(), set())


def test_headline_is_the_mean_over_templates_and_sets(results: dict) -> None:
    for entry in results["headline"]:
        rows = [r for r in results["scores"] if r["data_set"] == entry["data_set"] and r["calibration"] == "none"]
        assert len(rows) == 3
        for phase in ("before", "after"):
            mean = np.mean([row[phase]["accuracy"]["value"] for row in rows])
            assert entry[phase]["value"] == pytest.approx(mean)
        assert entry["train_template"]["before"] == rows[0]["before"]["accuracy"]
        assert entry["difference"]["value"] == pytest.approx(entry["after"]["value"] - entry["before"]["value"])
    mean = np.mean([entry["difference"]["value"] for entry in results["headline"]])
    assert results["headline_mean"]["value"] == pytest.approx(mean)
    assert len(results["scores"]) == 2 * 3 * 4


def test_one_phase_has_no_comparisons(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, reviews=20, trained=False)
    results = json.loads((folder / "results.json").read_text())
    assert {row["after"] for row in results["scores"]} == {None}
    assert {row["comparison"] for row in results["scores"]} == {None}
    assert results["headline"][0]["p_value"] is None
    assert results["headline_mean"] is None
    assert results["training"] is None
    assert {metric["difference"] for metric in results["focus"][0]["metrics"]} == {None}


def test_digest_is_of_the_content_and_not_of_its_order() -> None:
    assert config_digest({"a": 1, "b": [1, 2]}) == config_digest({"b": (1, 2), "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 2})
    assert len(config_digest({})) == 16


def test_what_does_not_fit_together_is_refused() -> None:
    rng = np.random.default_rng(0)
    examples = [make_review(rng, number) for number in range(5)]
    before, after = (answer_items("d", examples, phase, 0, TEMPLATES) for phase in ("before", "after"))
    with pytest.raises(AfaError, match="headline_calibration: 'vote' is not measured"):
        build_results(FACTS, Measured(before), replace(READING, headline_calibration="vote"))
    with pytest.raises(AfaError, match="data set 'e' was measured in one phase only"):
        build_results(FACTS, Measured(before, after + answer_items("e", examples, "after", 0, TEMPLATES)), READING)
    with pytest.raises(AfaError, match="1 stand on one side only"):
        build_results(FACTS, Measured(before, after[:-1]), READING)


def test_nothing_measured() -> None:
    results = build_results(FACTS, Measured([]), READING)
    assert (results["scores"], results["headline"], results["focus"]) == ([], [], [])
    assert results["run"]["config"]["a"]["x"] is None


def test_focus_of_reviews_that_belong_together_is_drawn_together() -> None:
    rng = np.random.default_rng(0)
    examples = [make_review(rng, number) for number in range(12)]
    items = answer_items("d", examples, "before", 0, TEMPLATES)
    _, scores = measure_focus(examples, 0, 0.3, 0.9)

    def reach(clusters: dict[str, list[str]]) -> float:
        found = build_results(FACTS, Measured(items, focus={"d": (scores, None)}, focus_clusters=clusters), READING)
        entry = next(row for row in found["focus"][0]["metrics"] if row["metric"] == "entropy")["before"]
        return entry["high"] - entry["low"]

    alone = reach({"d": [f"item {number}" for number in range(12)]})
    assert reach({}) == alone
    assert reach({"d": ["one"] * 12}) == 0 < alone
