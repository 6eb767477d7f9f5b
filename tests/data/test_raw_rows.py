import gzip
import json
from pathlib import Path

import pytest

from afa_llm.data.raw_rows import RawRow, read_text_file
from afa_llm.errors import AfaError


def read(tmp_path: Path, name: str, content: bytes | str) -> list[RawRow]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_text_file(path)


def good(rows: list[RawRow]) -> list[tuple[int, str]]:
    return [(row.line, row.values["text"]) for row in rows if not row.problem]


def bad(rows: list[RawRow]) -> list[tuple[int, str]]:
    return [(row.line, row.problem[0]) for row in rows if row.problem]


def test_one_bad_line_of_jsonl_costs_one_row(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "first, after a BOM"}',
        b'{"text": "cut off',
        b"",
        b'["a", "list"]',
        b'"text"',
        b"null",
        b'{"text": "latin caf\xe9"}',
        b'{"text": "two"} {"text": "objects"}',
        b"[" * 200_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"text": "nested {\\"text\\": [1, 2]}"}\r',
        '{"text": "caf\u00e9 \\u0000 \u2028 👍"}'.encode(),
        b'{"text": "no newline at the end"}',
    ]
    rows = read(tmp_path, "r.jsonl", b"\n".join(lines))
    assert good(rows) == [
        (1, "first, after a BOM"),
        (11, 'nested {"text": [1, 2]}'),
        (12, "café \0 \u2028 👍"),
        (13, "no newline at the end"),
    ]
    reasons = dict(bad(rows))
    assert sorted(reasons) == [2, 4, 5, 6, 7, 8, 9, 10]
    assert reasons[2].startswith("not valid JSON: Unterminated string")
    assert reasons[4] == "a JSON list, not an object"
    assert reasons[5] == "a JSON str, not an object"
    assert reasons[7] == "byte 0xe9 at character 20 is no UTF-8; save the file as UTF-8"
    assert reasons[8].startswith("not valid JSON: Extra data (character 17)")
    assert next(row.raw for row in rows if row.line == 7) == '{"text": "latin caf\\xe9"}'


def test_a_line_of_a_million_characters(tmp_path: Path) -> None:
    text = "so good " * 125_000
    assert good(read(tmp_path, "r.jsonl", json.dumps({"text": text}))) == [(1, text)]
    assert good(read(tmp_path, "r.csv", f'text,label\n"{text}",1\n')) == [(2, text)]


def test_gzip_is_read_and_its_damage_named(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "a"}\n' * 5000)
    assert len(good(read(tmp_path, "r.JSONL.GZ", packed))) == 5000
    for broken in (packed[: len(packed) // 2], b'{"text": "plain"}', packed[:-8] + b"\0" * 8):
        with pytest.raises(AfaError, match=r"r\.jsonl\.gz: damaged gzip archive"):
            read(tmp_path, "r.jsonl.gz", broken)


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.csv", "r.tsv", "r.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_empty_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(AfaError, match="holds no rows"):
        read(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)


def test_a_header_alone_is_no_rows(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match="holds no rows"):
        read(tmp_path, "r.csv", "text,label\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_utf16_and_utf32_are_named_with_or_without_bom(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(AfaError, match="UTF-16 or UTF-32, or no text at all; save it as UTF-8"):
        read(tmp_path, "r.csv", "text,label\nfine,1".encode(encoding))


def test_a_key_named_twice_costs_its_row(tmp_path: Path) -> None:
    twice = '{"text": "a", "text": "b"}'
    (only, fine) = read(tmp_path, "r.jsonl", f'{twice}\n{{"text": "c", "at": {{"x": 1}}}}\n')
    assert (only.line, only.problem, only.raw) == (1, ("names the key 'text' twice", "a key twice"), twice)
    assert (fine.problem, fine.values) == (None, {"text": "c", "at": {"x": 1}})
    rows = read(tmp_path, "r.json", f'[{twice}, {{"text": "c"}}]')
    assert good(rows) == [(2, "c")]
    assert rows[0].problem == ("names the key 'text' twice", "a key twice")


def test_json_holds_a_list_or_lines(tmp_path: Path) -> None:
    rows = read(tmp_path, "r.json", '[{"text": "a"}, 3,\n {"text": "b"}]')
    assert good(rows) == [(1, "a"), (3, "b")]
    assert bad(rows) == [(2, "a JSON int, not an object")]
    assert good(read(tmp_path, "r.json", '{"text": "a"}\n{"text": "b"}\n')) == [(1, "a"), (2, "b")]
    with pytest.raises(AfaError, match=r"r\.json line 2 column 1: not valid JSON: .*\.jsonl"):
        read(tmp_path, "r.json", '[{"text": "a"},\n')


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_under_the_name_of_lines(tmp_path: Path, indent: int | None) -> None:
    """So `to_json` of pandas writes it; every line was a bad row."""
    rows = [{"text": "a"}, {"text": "b"}]
    assert good(read(tmp_path, "r.jsonl", json.dumps(rows, indent=indent) + "\n")) == [(1, "a"), (2, "b")]
    assert good(read(tmp_path, "r.jsonl", json.dumps(rows[0], indent=indent))) == [(1, "a")]
    assert good(read(tmp_path, "r.json", json.dumps(rows[0], indent=indent))) == [(1, "a")]
    assert good(read(tmp_path, "r.jsonl", '{\n{"text": "a"}\n')) == [(2, "a")]  # a line that is cut off
    assert good(read(tmp_path, "r.jsonl", '["text"]\n{"text": "a"}\n')) == [(2, "a")]


def test_a_line_that_tells_a_spreadsheet_the_separator(tmp_path: Path) -> None:
    for first in ("sep=,", '"sep=,"', "sep=,,"):
        assert good(read(tmp_path, "r.csv", f"{first}\ntext,label\na,1\n")) == [(3, "a")], first


def test_csv_keeps_quotes_commas_and_line_ends_inside_fields(tmp_path: Path) -> None:
    content = 'text,label\r\n"a ""b"", c\r\nsecond line",1\r\n5" screen,0\r\nNUL \0 here,1\r\n'
    assert good(read(tmp_path, "r.csv", content)) == [
        (2, 'a "b", c\r\nsecond line'),
        (4, '5" screen'),
        (5, "NUL \0 here"),
    ]
    assert good(read(tmp_path, "r.tsv", "label\ttext\n1\ta, b\n")) == [(2, "a, b")]
    assert good(read(tmp_path, "old_mac.csv", "text,label\ra,1\rb,0\r")) == [(2, "a"), (3, "b")]


def test_an_unclosed_quote_costs_its_own_line_alone(tmp_path: Path) -> None:
    content = 'text,label\ngood,1\n"never closed,0\nfine,1\n"quoted, well",0\nlast,1\n'
    rows = read(tmp_path, "r.csv", content)
    assert good(rows) == [(2, "good"), (4, "fine"), (5, "quoted, well"), (6, "last")]
    assert [line for line, _ in bad(rows)] == [3]


def test_an_unclosed_quote_before_unquoted_rows(tmp_path: Path) -> None:
    rows = read(tmp_path, "r.csv", 'text,label\n"open,0\n' + "fine,1\n" * 3000)
    assert len(good(rows)) == 3000
    assert bad(rows) == [(2, "a quote that is never closed")]


def test_the_rest_of_a_broken_record_is_no_review(tmp_path: Path) -> None:
    rows = read(tmp_path, "r.csv", 'text,label\n"starts here\nand "ends" there",1\nfine,0\n')
    assert good(rows) == [(4, "fine")]
    assert [line for line, _ in bad(rows)] == [2, 3]


def test_a_quotation_that_spans_rows_of_a_tsv_does_not_join_them(tmp_path: Path) -> None:
    content = 'text\tlabel\n"I loved it.\t1\na dull one\t0\nYou will too."\t1\n"two\nlines"\t0\nlast\t1\n'
    rows = read(tmp_path, "r.tsv", content)
    assert good(rows) == [(3, "a dull one"), (4, 'You will too."'), (5, "two\nlines"), (7, "last")]
    (bad,) = [row for row in rows if row.problem]
    assert (bad.line, bad.raw) == (2, '"I loved it.\t1')
    assert bad.problem == ("a quote that only a later row closes", "broken CSV record")


def test_csv_rows_of_the_wrong_width_and_bytes(tmp_path: Path) -> None:
    rows = read(tmp_path, "r.csv", b"text,label\na,b,1\nalone\ncaf\xe9,1\nfine,1\n")
    assert good(rows) == [(5, "fine")]
    assert bad(rows) == [
        (2, "3 fields where the header has 2"),
        (3, "1 fields where the header has 2"),
        (4, "byte 0xe9 at character 4 is no UTF-8; save the file as UTF-8"),
    ]
    assert [row.problem[1] for row in rows if row.problem] == ["wrong number of fields"] * 2 + ["not UTF-8"]
    with pytest.raises(AfaError, match=r"r\.csv line 1: the header can't be read: .* is no UTF-8; save the file as"):
        read(tmp_path, "r.csv", b"text,\xe9tiquette\na,1\n")


def test_columns_named_twice_are_told_apart_by_their_place(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "r.csv", ",label,text,label,\nx,1,a,0,\n")
    assert row.values == {"(column 1)": "x", "label (column 2)": "1", "text": "a", "label (column 4)": "0"}
    with pytest.raises(AfaError, match="line 2: the header names no column"):
        read(tmp_path, "r.csv", '\n"",""\na,1\n')


def test_a_spreadsheet_with_empty_columns_and_rows(tmp_path: Path) -> None:
    """Its used range may be wider and longer than what is in it; a text with commas may have spilled into the rest."""
    content = ",,,\nlabel,text,,\n1,fine,,\n0,dull\n1,good, bad and ugly,\n,,,\n0,so so, ,\n,,,\n\n,,,\n"
    rows = read(tmp_path, "r.csv", content)
    assert [(row.line, row.values) for row in rows if not row.problem] == [
        (3, {"label": "1", "text": "fine"}),
        (4, {"label": "0", "text": "dull"}),
        (6, {"label": "", "text": ""}),
        (7, {"label": "0", "text": "so so"}),
    ]
    assert bad(rows) == [(5, "' bad and ugly' stands under no column name")]
    assert good(read(tmp_path, "r.tsv", "text\tlabel\t\t\nfine\t1\t\t\n\t\t\t\n")) == [(2, "fine")]
