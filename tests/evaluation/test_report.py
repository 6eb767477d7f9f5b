"""The page: whole without its optional parts, closed to the network, hostile text shown and not run."""

import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from fake_run import write_fake_run

from afa_llm.errors import AfaError
from afa_llm.evaluation.report import rewrite_report, write_report


class Page(HTMLParser):
    """Checks nesting and collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Page:
    return page_of(write_fake_run(tmp_path_factory.mktemp("full"), reviews=80))


def test_the_page_says_what_results_say(full: Page) -> None:
    headings = re.sub(r"\s+", " ", full.text)
    for words in ("Accuracy on sst2", "Focus quality", "Where the model looks", "All templates", "Training", "The run"):
        assert words in headings
    assert "Comprehensiveness" in headings
    assert "4 values are not numbers" in headings
    assert sum(tag == "path" for tag, _ in full.tags) >= 10


@pytest.mark.parametrize("trained", [True, False])
def test_every_row_of_a_table_is_as_wide_as_its_head(tmp_path: Path, trained: bool) -> None:
    page = page_of(write_fake_run(tmp_path / "run", data_sets=("films", "books"), reviews=40, trained=trained))
    tables: list[list[int]] = []
    for tag, attributes in page.tags:
        if tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append(0)
        elif tag in ("th", "td") and tables[-1]:
            tables[-1][-1] += int(attributes.get("colspan") or 1)
    assert len(tables) >= 3
    for widths in tables:
        assert set(widths) == {widths[0]}, tables


def test_the_page_cannot_reach_the_network(full: Page) -> None:
    policy = next(a["content"] for tag, a in full.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert not any(tag in ("script", "iframe", "object", "embed", "form", "base", "img") for tag, _ in full.tags)
    for tag, attributes in full.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "action", "data", "xlink:href"):
                assert value == "data:,", (tag, name, value)
    css = (resources.files("afa_llm") / "assets" / "report" / "report.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(2)</script>",
    "<img src=x onerror=alert(3)>",
    '" onmouseover="alert(4)',
    "{{ 7 * 191 }} {% raw %}",
    "a\x00b \x1b[2J \u202egnp.exe \ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_every_place(tmp_path: Path, text: str) -> None:
    folder = write_fake_run(tmp_path, (text, "b"), reviews=12, templates=("t", text), steps=6)
    results = json.loads((folder / "results.json").read_text())
    results["labels"] = [text, "positive"]
    results["run"] |= {"name": text, "device": text, "config": {text: text}, "versions": {text: text}}
    results["training"] = {text: [text]}
    for row in results["scores"]:
        row["before"]["group_accuracy"] = {text: row["before"]["accuracy"]}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, text: 1.5}) + "\n" + json.dumps({"step": 2, text: 2}))
    for file in (folder / "items").glob("focus_*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row |= {"text": text, "example_id": text, "words": [[0, 9]], "rationale": [1.0], "data_set": text}
            row["before"]["focus"] = row["after"]["focus"] = [1.0]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(folder)
    assert not any(tag in ("script", "img") for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "1337" not in page.text
    raw = (folder / "report.html").read_bytes()
    assert not any(character in raw for character in (b"\x00", b"\x1b", "\u202e".encode()))
    assert text.split()[0].replace("\x00", "\ufffd") in page.text


@pytest.mark.parametrize(
    "options",
    [
        {"trained": False},
        {"trained": False, "focus": False, "templates": ("t",)},
        {"rationales": False},
        {"focus": False},
        {"focus": False, "reviews": 0, "steps": 0},
        {"data_sets": tuple(f"set {n}" for n in range(10)), "reviews": 12, "groups": True},
        {"data_sets": ()},
        {"reviews": 1},
        {"steps": 1},
        {"steps": 0},
    ],
    ids=str,
)
def test_missing_parts_do_not_break_the_page(tmp_path: Path, options: dict) -> None:
    page = page_of(write_fake_run(tmp_path, **{"reviews": 15, "steps": 8, **options}))
    words = re.sub(r"\s+", " ", page.text)
    assert "The run" in words
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b|Undefined", words)
    assert ("Training" in words.split("The run")[0]) == (options.get("trained", True) and options.get("steps", 8) > 0)


def test_pairs_tests_and_slices_are_told(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, ("pairs", "tests"), reviews=60, steps=0, suites=True)
    text = re.sub(r"\s+", " ", page_of(folder).text)
    for words in (
        "Reviews that belong together", "All right", "In order", "Accuracy, edited", "Behavioural tests",
        "Invariance: a change", "mean change of p", "Rare and frequent words", "rare in training", "times in training",
    ):  # fmt: skip
        assert words in text
    results = json.loads((folder / "results.json").read_text())
    (row,) = [r for r in results["pairs"] if r["template"] == "review_sentiment"]
    share = row["before"]["consistency"]
    ends = [f"{100 * share[end]:.1f}" for end in ("value", "low", "high")]
    assert "{} ({} to {})".format(*ends) in text


def test_results_of_earlier_versions_are_still_readable(tmp_path: Path) -> None:
    """Without pairs, behaviour, slices, their fields in the items, and the newer metrics of the focus."""
    folder = write_fake_run(tmp_path, reviews=30, focus=True)
    path = folder / "results.json"
    results = json.loads(path.read_text())
    for name in ("pairs", "behaviour", "slices"):
        del results[name]
    for entry in results["focus"]:
        entry["metrics"] = [m for m in entry["metrics"] if m["metric"] in ("comprehensiveness", "auprc", "entropy")]
    path.write_text(json.dumps(results))
    for file in (folder / "items").glob("answers_*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        old = [{key: value for key, value in row.items() if key not in ("pair", "side")} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in old))
    for file in (folder / "items").glob("focus_*.jsonl"):
        file.unlink()  # the gallery is then made of the answers
    text = page_of(folder).text
    assert "Focus quality" in text and "AUPRC" in text
    assert "belong together" not in text and "Not everything of this run could be read" not in text


def test_only_results_are_needed_and_broken_files_are_named(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "r", reviews=15, steps=4)
    (folder / "items" / "focus_sst2.jsonl").write_text('{"text": 1}\n')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "task_l')
    text = page_of(folder).text
    assert "focus_sst2.jsonl: record 1: not a focus item" in text
    assert "metrics.jsonl: 1 lines are no JSON objects and were left out, the first is line 5" in text
    for file in [*(folder / "items").iterdir(), folder / "metrics.jsonl"]:
        file.unlink()
    assert "Accuracy, before and after" in page_of(folder).text
    (folder / "results.json").write_text("{}")
    with pytest.raises(AfaError, match="not the results of a run"):
        write_report(folder)
    (folder / "results.json").unlink()
    with pytest.raises(AfaError, match="no such file"):
        write_report(folder)


@pytest.mark.parametrize("name", ["run", "headline", "scores", "focus", "confidence"])
@pytest.mark.parametrize("value", [7, [7], [{}]], ids=str)
def test_results_that_somebody_changed_are_told_not_a_crash(tmp_path: Path, name: str, value: Any) -> None:
    folder = write_fake_run(tmp_path, reviews=15, steps=4)
    path = folder / "results.json"
    results = json.loads(path.read_text())
    rewrite_report(folder)
    if (name, value) == ("confidence", 7):
        value = None
    path.write_text(json.dumps({**results, name: value}))
    with pytest.raises(AfaError, match=r"results\.json: not as a run writes it .*; restore it, or measure again"):
        rewrite_report(folder)


def test_folders_in_the_place_of_files(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, reviews=15, steps=4)
    for file in [*(folder / "items").iterdir(), folder / "metrics.jsonl"]:
        file.unlink()
        file.mkdir()
    text = page_of(folder).text
    assert "metrics.jsonl: cannot be read: Is a directory" in text and "focus_sst2.jsonl: cannot be read" in text
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    with pytest.raises(AfaError, match=r"report\.html: cannot be written"):
        rewrite_report(folder)


def test_without_focus_changed_answers_are_shown(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, reviews=60, focus=False)
    results = json.loads((folder / "results.json").read_text())
    test = results["headline"][0]["train_template"]["comparison"]["test"]
    assert test["won"] > 0
    text = re.sub(r"\s+", " ", page_of(folder).text)
    assert "Answers that changed" in text
    assert f"of {test['won']}" in text


def luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_on_every_ground(scheme: int) -> None:
    css = (resources.files("afa_llm") / "assets" / "report" / "report.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.S)[scheme]
    colours = {
        name: tuple(int(value[i : i + 2], 16) for i in (0, 2, 4))
        for name, value in re.findall(r"--(\w+): #([0-9a-f]{6})", block)
    }
    amber = tuple(int(x) for x in re.search(r"--amber: (\d+), (\d+), (\d+)", block).groups())
    for ground in ("paper", "sheet"):
        for text in ("ink", "quiet", "before", "after", "better", "worse"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for level in range(11):
        shaded = tuple(level / 10 * a + (1 - level / 10) * s for a, s in zip(amber, colours["sheet"], strict=True))
        assert contrast(colours["ink"], shaded) >= 4.5, level
    assert contrast(colours["sheet"], amber) > 1.5  # the fullest shade can be seen


def test_a_file_in_place_of_a_run_s_folder_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(AfaError, match=r"results\.json: a file, not the folder of a run"):
        rewrite_report(tmp_path / "results.json")
