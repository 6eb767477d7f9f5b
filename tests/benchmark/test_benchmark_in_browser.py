"""The report of a benchmark in a real browser, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import laid_out, needs_browser
from fake_matrix import write_fake_matrix

from afa_llm.benchmark.report import write_benchmark

pytestmark = [pytest.mark.system, needs_browser]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    benchmark, cells = write_fake_matrix(folder, seeds=(0, 1, 2), reviews=60, missing=("books/afa/seed2",))
    write_benchmark(benchmark, cells, folder / "fake")
    return folder / "fake" / "report.html"


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_window(page: Path, tmp_path: Path, width: int) -> None:
    found = laid_out(page, width, tmp_path)
    assert (found.window, found.page, found.outside, found.complaints) == (width, width, [], [])
    assert found.headings >= 5


@pytest.mark.parametrize("name", ["LoRA, cross-entropy", "AFA", "films_dev", "books"])
def test_long_names_do_not_widen_it(page: Path, tmp_path: Path, name: str) -> None:
    long = tmp_path / "long.html"
    text = page.read_text()
    assert name in text
    long.write_text(text.replace(name, 160 * "Z"))
    found = laid_out(long, 400, tmp_path)
    assert (found.page, found.outside) == (400, [])
