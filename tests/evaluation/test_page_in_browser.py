"""The report of a run in a real browser, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import check_fits, check_long_name_fits, laid_out, needs_browser
from fake_run import write_fake_run

from afa_llm.evaluation.report import write_report

pytestmark = [pytest.mark.system, needs_browser]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_fake_run(tmp_path_factory.mktemp("run"), reviews=80))


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_window(page: Path, tmp_path: Path, width: int) -> None:
    check_fits(page, width, tmp_path)


@pytest.mark.parametrize("word", ["sst2", "review_sentiment", "positive", "film"])
def test_long_names_and_words_do_not_widen_it(page: Path, tmp_path: Path, word: str) -> None:
    check_long_name_fits(page, word, tmp_path)


def test_what_sticks_out_is_seen(page: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.html"
    wide.write_text(page.read_text().replace("</h1>", '<span class="rod" style="padding-left:900px">!</span></h1>', 1))
    found = laid_out(wide, 400, tmp_path)
    assert found.page > 400
    assert any("rod" in element for element in found.outside)
