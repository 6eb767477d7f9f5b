from pathlib import Path

import pytest

from afa_llm.data.datasets_rows import parquet_columns, read_hub, read_parquet
from afa_llm.errors import AfaError


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A data set as `datasets` reads one from the hub: a folder with a file for each split."""
    (tmp_path / "train.jsonl").write_text('{"text": "good", "label": 1}\n{"text": "bad", "label": 0}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "fine", "label": 1}\n')
    return str(tmp_path)


def test_a_split_is_read_row_by_row(folder: str) -> None:
    rows = read_hub(folder, None, "train", None)
    assert [(row.line, row.values["text"]) for row in rows] == [(1, "good"), (2, "bad")]
    assert rows.columns == ["text", "label"]
    assert [row.line for row in rows[1:]] == [2]


@pytest.mark.parametrize("name", ["csv", "json", "parquet", "pandas", "imagefolder"])
def test_a_kind_of_file_is_no_data_set(name: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would read whatever files of that kind lie in the current folder."""
    monkeypatch.chdir(folder)
    with pytest.raises(AfaError, match=f"{name}: a kind of file and no data set"):
        read_hub(name, None, "train", None)


def test_a_missing_split_names_those_there_are(folder: str) -> None:
    with pytest.raises(AfaError, match="no split 'validation'; there are 'train', 'test'"):
        read_hub(folder, None, "validation", None)


def test_a_missing_subset_names_those_there_are(folder: str) -> None:
    with pytest.raises(AfaError, match=r"subset 'sst9': BuilderConfig 'sst9' not found. Available: .'default'"):
        read_hub(folder, "sst9", "train", None)


def test_an_unreachable_name_is_neither_local_nor_on_the_hub() -> None:
    with pytest.raises(AfaError, match=r"no-such/data: neither a local file nor .* reached .*HF_HUB_OFFLINE"):
        read_hub("no-such/data", None, "train", None)


def test_malformed_hub_data_is_not_called_unreachable(folder: str) -> None:
    Path(folder, "train.jsonl").write_text('{"text": "good", "label": 1}\n{"text": [broken\n')
    with pytest.raises(AfaError, match="does not load"):
        read_hub(folder, None, "train", None)


@pytest.mark.parametrize("name", ["r[1].parquet", "r*.parquet"])
def test_a_parquet_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    """Names such as reviews[1].parquet were not found, and r*.parquet was read with its neighbours."""
    import datasets

    for file, text in ((name, "a"), ("r1.parquet", "b"), ("r2.parquet", "c")):
        datasets.Dataset.from_list([{"text": text, "label": 0}]).to_parquet(str(tmp_path / file))
    assert [row.values["text"] for row in read_parquet(tmp_path / name)] == ["a"]
    assert parquet_columns(tmp_path / name) == ["text", "label"]


def test_what_is_not_asked_for_sinks_no_parquet_file(tmp_path: Path) -> None:
    """A column of maps made the whole file unreadable, and so did a text that is no UTF-8 in one row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    maps = pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))
    texts = pa.array([b"fine", b"caf\xe9"]).cast(pa.string(), safe=False)
    years = pa.array([10**12, 0], pa.timestamp("s"))
    columns = [pa.array(["x", "y"]), maps, pa.array([[b"\xff"], []]), pa.array([{"n": 1}] * 2), years, texts]
    columns += [pa.array(["neg", "pos"]).dictionary_encode(), pa.array(["1", "2"])]
    names = ["id", "maps", "bytes", "struct", "years", "text", "label", "id"]
    pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "r.parquet")
    first, second = (row.values for row in read_parquet(tmp_path / "r.parquet"))
    assert (first["text"], first["label"], first["id (column 8)"]) == ("fine", "neg", "1")
    assert (second["text"], second["label"]) == (b"caf\xe9", "pos")
    assert list(first) == parquet_columns(tmp_path / "r.parquet")


def test_parquet_rows_and_its_damage(tmp_path: Path) -> None:
    import datasets

    good, empty, bad = tmp_path / "good.parquet", tmp_path / "empty.parquet", tmp_path / "bad.parquet"
    datasets.Dataset.from_list([{"text": "a", "label": 0}, {"text": None, "label": 1}]).to_parquet(str(good))
    datasets.Dataset.from_dict({"text": [], "label": []}).to_parquet(str(empty))
    bad.write_bytes(b"PAR1 and then nothing of the kind")
    assert [(row.line, row.values) for row in read_parquet(good)] == [
        (1, {"text": "a", "label": 0}),
        (2, {"text": None, "label": 1}),
    ]
    with pytest.raises(AfaError, match="holds no rows"):
        read_parquet(empty)
    with pytest.raises(AfaError, match="not a readable parquet file"):
        read_parquet(bad)


def test_bytes_that_are_text(tmp_path: Path) -> None:
    """A file of an old Spark had no usable row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array(["café".encode(), b"caf\xe9", None]), pa.array([b"pos", b"neg", b"pos"])]
    pq.write_table(pa.Table.from_arrays(columns, ["text", "label"]), tmp_path / "r.parquet")
    rows = [row.values for row in read_parquet(tmp_path / "r.parquet")]
    assert [row["text"] for row in rows] == ["café", b"caf\xe9", None]
    assert [row["label"] for row in rows] == ["pos", "neg", "pos"]
