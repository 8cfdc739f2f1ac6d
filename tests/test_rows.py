"""Files of rows in every format, told by their content; files of something else, named for what they are."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from course_utils import datafiles
from course_utils.core import files
from course_utils.datafiles.trees import DataError


def row(message_id: str, text: str, rank: int | None, labels: list[str]) -> dict:
    parent_id, role = (None, "prompter") if message_id == "t" else ("t", "assistant")
    ids = {"message_id": message_id, "parent_id": parent_id, "message_tree_id": "t"}
    return {**ids, "role": role, "text": text, "rank": rank, "labels": {"name": labels}}


ROWS = [
    row("t", "Où ?\u2028Là ?", None, []),
    row("a", "Là.", 0, ["spam"]),
    row("b", "Ici.", 1, []),
    row("c", "?", None, ["spam", "quality"]),
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def parquet_of_pandas(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pd.DataFrame(rows).to_parquet(file)
    return file.getvalue()


def parquet_with_nan(rows: list[dict]) -> bytes:
    """Ranks as floats, and NaN, not null, where there is none."""
    ranks = pyarrow.array([float("nan") if row["rank"] is None else float(row["rank"]) for row in rows])
    table = pyarrow.Table.from_pylist(rows)
    file = io.BytesIO()
    pyarrow.parquet.write_table(table.set_column(table.schema.get_field_index("rank"), "rank", ranks), file)
    return file.getvalue()


READABLE = {
    "JSON lines": LINES,
    "no line break at the end": LINES.rstrip(),
    "BOM": b"\xef\xbb\xbf" + LINES,
    "CRLF": LINES.replace(b"\n", b"\r\n"),
    "blank lines": b"\n" + LINES.replace(b"\n", b"\n  \n\n"),
    "escaped": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "gz": gzip.compress(LINES),
    "gz with BOM and CRLF": gzip.compress(b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n")),
    "JSON array": json.dumps(ROWS).encode(),
    "JSON array over many lines": b"\xef\xbb\xbf\n" + json.dumps(ROWS, indent=2).encode(),
    "JSON array, gz": gzip.compress(json.dumps(ROWS).encode()),
    "Parquet of pandas": parquet_of_pandas(ROWS),
    "Parquet with NaN": parquet_with_nan(ROWS),
    "nested columns": parquet_of_pandas([{"message_tree_id": "t", "prompt": {**ROWS[0], "replies": ROWS[1:]}}]),
}


@pytest.mark.parametrize("name", ["made.jsonl", "made.parquet", "made"])
@pytest.mark.parametrize("content", READABLE.values(), ids=READABLE)
def test_formats_are_told_by_content_not_by_name(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    (tree,) = datafiles.load_conversations(tmp_path / name)
    assert tree.text == ROWS[0]["text"]
    assert [(reply.text, reply.rank) for reply in tree.replies] == [("Là.", 0), ("Ici.", 1), ("?", None)]
    assert [reply.extra["labels"]["name"] for reply in tree.replies] == [["spam"], [], ["spam", "quality"]]


BROKEN = [row | {"text": None} if row["message_id"] == "b" else row for row in ROWS]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("\n\n".join(map(json.dumps, BROKEN)).encode(), "line 5"),
        (json.dumps(BROKEN, indent=2).encode(), "item 3"),
        (parquet_of_pandas(BROKEN), "row 3"),
    ],
)
def test_errors_count_as_the_reader_does(content, place, tmp_path):
    """Lines as an editor counts them, blank ones too; items of a list and rows of a table from 1."""
    (tmp_path / "made").write_bytes(content)
    with pytest.raises(DataError, match=f"made, {place}, field 'text': message 'b'"):
        datafiles.load_conversations(tmp_path / "made")


def a_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("made.jsonl", LINES)
    return file.getvalue()


def a_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("made.jsonl")
        info.size = len(LINES)
        archive.addfile(info, io.BytesIO(LINES))
    return file.getvalue()


def an_sqlite_file() -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("create table messages (message_id text)")
    return database.serialize()


def an_arrow_file() -> bytes:
    file, table = io.BytesIO(), pyarrow.table({"message_id": ["t"]})
    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


OTHER = {
    "UTF-16": (LINES.decode().encode("utf-16"), "UTF-16.*save it as UTF-8"),
    "UTF-16 without BOM": (LINES.decode().encode("utf-16-le"), "UTF-16.*save it as UTF-8"),
    "UTF-16, other order": (LINES.decode().encode("utf-16-be"), "UTF-16.*save it as UTF-8"),
    "UTF-32": (LINES.decode().encode("utf-32"), "UTF-16 or UTF-32.*save it as UTF-8"),
    "latin-1": ('{"text": "Où ?"}\n'.encode("latin-1"), "line 1: not UTF-8.*save it as UTF-8"),
    "zip": (a_zip(), "a zip archive.*unpack it"),
    "tar": (a_tar(), "a tar archive.*unpack it"),
    "gz of a tar": (gzip.compress(a_tar()), "a tar archive.*unpack it"),
    "bz2": (bz2.compress(LINES), "bzip2.*unpack it"),
    "xz": (lzma.compress(LINES), "xz.*unpack it"),
    "pickle": (pickle.dumps(ROWS), "a Python pickle.*JSON"),
    "sqlite": (an_sqlite_file(), "an SQLite database.*JSON"),
    "arrow": (an_arrow_file(), "an Arrow file.*Parquet"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS.*git lfs pull"),
    "web page": (b"<!DOCTYPE html>\n<html></html>", "a web page.*download the file itself"),
    "other binary": (bytes(range(1, 128)) + b"\0\1\2", "a binary file"),
    "gz cut off": (gzip.compress(LINES)[:-20], "a gzip file.*cut off or damaged.*again"),
    "gz damaged": (gzip.compress(LINES)[:12] + b"\xff" * 40, "a gzip file.*cut off or damaged.*again"),
    "Parquet cut off": (parquet_of_pandas(ROWS)[:-20], "a Parquet file.*cut off or damaged.*again"),
    "not JSON": (LINES + b"{broken\n", "line 5: not valid JSON.*one JSON object a line"),
    "array cut off": (json.dumps(ROWS, indent=1).encode()[:-3], r"line \d+: not valid JSON.*one JSON object a line"),
    "comma-separated": (b"message_id,text\nt,Hi\n", "line 1: not valid JSON.*one JSON object a line"),
    "empty": (b"", "it is empty"),
    "only blank lines": (b"\n \r\n", "it is empty"),
    "empty array": (b"[]", "it is empty"),
    "empty Parquet": (parquet_of_pandas(ROWS[:0]), "it is empty"),
}


@pytest.mark.parametrize(("content", "words"), OTHER.values(), ids=OTHER)
def test_what_cannot_be_read_is_named_with_the_way_out(content, words, tmp_path):
    (tmp_path / "made.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=f"^made.jsonl.*{words}"):
        datafiles.load_conversations(tmp_path / "made.jsonl")


def test_without_pyarrow_a_parquet_file_says_what_to_install(tmp_path, monkeypatch):
    """It comes with `datasets`, which notebooks 01 to 03 do without."""
    (tmp_path / "made").write_bytes(parquet_of_pandas(ROWS))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match="made is a Parquet file.*pip install pyarrow"):
        datafiles.load_conversations(tmp_path / "made")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "made.jsonl").write_bytes(LINES)
    assert len(datafiles.load_conversations("~/made.jsonl")) == 1


def folder_with_a_file(tmp_path: Path) -> Path:
    (tmp_path / "made.jsonl").write_bytes(LINES)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        (lambda folder: folder / "nothing.jsonl", FileNotFoundError, "no file .*nothing.jsonl.*holds made.jsonl"),
        (lambda folder: folder / "no" / "made.jsonl", FileNotFoundError, "no folder .*no, so no made.jsonl"),
        (lambda folder: folder, IsADirectoryError, "is a folder.*it holds made.jsonl"),
        (lambda folder: "", IsADirectoryError, "is a folder"),
    ],
)
def test_a_missing_file_a_missing_folder_and_a_folder_are_named(
    path: Callable[[Path], Path], kind: type[OSError], words: str, tmp_path
):
    with pytest.raises(kind, match=words):
        datafiles.load_conversations(path(folder_with_a_file(tmp_path)))


NOT_TEXT = {"null": None, "empty": "", "blank": "  ", "list": ["a"], "number": 7, "NaN": float("nan"), "half": "\ud83d"}


@pytest.mark.parametrize("text", NOT_TEXT.values(), ids=NOT_TEXT)
@pytest.mark.parametrize(
    ("file", "field", "load"),
    [
        ("passages.jsonl", "text", datafiles.load_passages),
        ("prompts.jsonl", "reference", datafiles.load_prompts),
        ("prompts.jsonl", "must", datafiles.load_prompts),
        ("tasks/dates.jsonl", "answer", lambda: datafiles.load_task("dates", "train")),
    ],
)
def test_the_courses_own_files_hold_text(file, field, load, text, tmp_path, monkeypatch):
    whole = [json.loads(line) for line in (files.data_dir() / file).read_text(encoding="utf-8").splitlines()[:2]]
    whole[1][field] = [text] if field == "must" else text
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in whole), encoding="utf-8")
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    with pytest.raises(DataError, match=rf"^(tasks/)?{path.name}, line 2, field '{field}': "):
        load()
