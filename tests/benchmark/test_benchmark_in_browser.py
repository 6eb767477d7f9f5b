"""The report of a benchmark in a real browser, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import check_fits, check_long_name_fits, needs_browser
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
    check_fits(page, width, tmp_path)


@pytest.mark.parametrize("name", ["LoRA, cross-entropy", "AFA", "films_dev", "books"])
def test_long_names_do_not_widen_it(page: Path, tmp_path: Path, name: str) -> None:
    check_long_name_fits(page, name, tmp_path)
