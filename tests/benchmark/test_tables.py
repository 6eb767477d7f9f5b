"""Tables of a benchmark by hand: columns of CSV, and LaTeX that stays a table whatever the names."""

from __future__ import annotations

import csv
import io

from afa_llm.benchmark import tables


def test_csv_has_the_columns_of_an_estimate_also_where_there_is_none() -> None:
    rows = [{"arm": "base", "gain": None}, {"arm": "afa", "gain": {"value": 0.5, "low": None}}]
    found = list(csv.DictReader(io.StringIO(tables.long_csv(rows))))
    assert found == [
        {"arm": "base", "gain_value": "", "gain_low": ""},
        {"arm": "afa", "gain_value": "0.5", "gain_low": ""},
    ]


def test_latex_rows_that_begin_like_an_argument() -> None:
    r"""After `\\` a [ begins a length, and * is swallowed."""
    rows = tuple((name, False, (tables.Cell("1"),)) for name in ("[ours] a", "*b*", "c\n\nd", "<e|>"))
    text = tables.latex(tables.Table("t", "two\nlines", ("Arm", "[x]"), rows))
    assert text.splitlines()[0] == r"% two lines. Needs \usepackage{booktabs}."
    assert text.splitlines()[3:] == [
        r"Arm & {[}x] \\",
        r"\midrule",
        r"{[}ours] a & 1 \\",
        r"{*}b{*} & 1 \\",
        r"c  d & 1 \\",
        r"\textless{}e\textbar{}\textgreater{} & 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_escapes() -> None:
    table = tables.Table("t", "t", ("a_b", "50 %"), (("x & y", False, (tables.Cell("−1.5", "± 2", "★★"),)),))
    assert r"x \& y & $-$1.5$^{**}$ {\footnotesize $\pm$ 2} \\" in tables.latex(table)
    assert r"a\_b & 50 \%" in tables.latex(table)


def test_latex_holds_no_character_that_it_refuses() -> None:
    table = tables.Table("t", "t", ("Arm", "a\x1b[31m"), (("x\u202ey", False, (tables.Cell("1"),)),))
    assert "Arm & a?{[}31m \\\\" in tables.latex(table) and "x?y & 1" in tables.latex(table)
