"""Files that nodes leave for each other, and that nothing stays behind."""

from __future__ import annotations

from pathlib import Path

from afa_llm.doctor.shared_folder import Mark


def test_two_nodes_on_one_folder_and_one_beside_it(tmp_path: Path) -> None:
    marks = [Mark(str(tmp_path / where), "f00d", k) for k, where in enumerate(("x/runs", "x/runs", "y"))]
    assert [mark.write().trouble for mark in marks] == [None] * 3
    assert [mark.read(3, 0) for mark in marks] == [[0, 1], [0, 1], [2]]
    for mark in marks:
        mark.remove_file()
    for mark in marks:
        mark.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_examination_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / ".afa-doctor-f00d-1").write_text("beef 1\n")
    mark = Mark(str(tmp_path), "f00d", 0)
    mark.write()
    assert mark.read(2, 0) == [0]


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    mark = Mark(str(tmp_path), "f00d", 0)
    found = mark.write()
    assert found.free_bytes and found.path == str(tmp_path)
    mark.remove()
    assert tmp_path.is_dir()


def test_why_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Mark(str(tmp_path / "file" / "runs"), "f00d", 0).write().trouble == "Not a directory"
