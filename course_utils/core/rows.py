"""How is a file of rows read, whatever its format?

The content tells the format: JSON lines, a JSON array, Parquet, or one of these packed with gzip. What cannot be read
is named for what it is, with the way out.
"""

import codecs
import gzip
import json
import os
import reprlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

Placed = tuple[str, Any]  # where a row stands, as an error names it ("made.jsonl, line 3"), and the row

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
UNPACK = "unpack it, and give the file that holds the rows"
AS_UTF8 = "save it as UTF-8"
AS_JSON = "write its rows as JSON, one object a line"
OTHER_FORMATS = {  # what a file starts with, what it then is, and the way out
    b"PK\x03\x04": ("a zip archive", UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", UNPACK),
    b"BZh": ("a file packed with bzip2", UNPACK),
    b"\xfd7zXZ": ("a file packed with xz", UNPACK),
    b"\x28\xb5\x2f\xfd": ("a file packed with zstd", UNPACK),
    codecs.BOM_UTF16_LE: ("text in UTF-16 or UTF-32", AS_UTF8),
    codecs.BOM_UTF16_BE: ("text in UTF-16 or UTF-32", AS_UTF8),
    codecs.BOM_UTF32_BE: ("text in UTF-32", AS_UTF8),
    b"{\0": ("text in UTF-16 or UTF-32", AS_UTF8),
    b"[\0": ("text in UTF-16 or UTF-32", AS_UTF8),
    b"\0{": ("text in UTF-16", AS_UTF8),
    b"\0[": ("text in UTF-16", AS_UTF8),
    b"SQLite format 3\0": ("an SQLite database", AS_JSON),
    b"\x80": ("a Python pickle", AS_JSON),  # text in UTF-8 cannot start with this byte
    b"ARROW1": ("an Arrow file", "write its table as Parquet or as JSON, one object a line"),
    b"version https://git-lfs": ("only the Git LFS pointer to the data", "run `git lfs pull` in its folder"),
    b"<": ("a web page or XML", "download the file itself, not the page that shows it"),
}


class DataError(ValueError):
    """A data file is malformed; the message names file, line and field."""


class NothingLeft(DataError):
    """All is readable, and nothing of it can be used here."""


def read_rows(path: Path) -> Iterator[Placed]:
    """The rows of a file, each with its place: a line, an item of a JSON array, or a row of a Parquet table.

    A byte-order mark, blank lines and any kind of line break are read over.

    Raises:
        DataError: the file is damaged or of another format; names file, line where there is one, and the way out.
        FileNotFoundError, IsADirectoryError: there is no such file, or it is a folder.
    """
    content = _unpacked(_content(path), path.name)
    if content.startswith(PARQUET):
        yield from numbered(_parquet_rows(content, path.name), path.name)
        return
    _refuse_other_formats(content, path.name)
    lines = list(_lines(content.removeprefix(codecs.BOM_UTF8), path.name))
    if next((line for line in lines if line.strip()), "").lstrip().startswith("["):
        yield from numbered(_parsed("\n".join(lines), path.name), path.name, "item")
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path.name}, line {number}", _parsed(line, path.name, number)


def numbered(rows: Iterable[Any], source: str, unit: str = "row") -> Iterator[Placed]:
    """Records that do not come line by line, each with its place: "source, row 1" and so on."""
    return ((f"{source}, {unit} {number}", row) for number, row in enumerate(rows, 1))


def fail(place: str, field: str, problem: str) -> NoReturn:
    """Refuse a row.

    Raises:
        DataError: always.
    """
    raise DataError(f"{place}, field {field!r}: {problem}")


def short(value: object) -> str:
    """A value as an error message shows it."""
    return reprlib.repr(value)


def check_text(place: str, field: str, value: object, of: str = "") -> None:
    """Refuse what is not text or cannot be encoded; `of` says whose text it is."""
    if not isinstance(value, str) or not value.strip():
        fail(place, field, f"{of}expected a non-empty string, found {short(value)}; correct it, or leave the row out")
    check_characters(place, field, value, of)


def check_characters(place: str, field: str, value: str, of: str = "") -> None:
    """Refuse half of a surrogate pair."""
    if (start := half_character(value)) is not None:
        half = f"character {start + 1} is {value[start]!r}, half of a character, as of a cut emoji"
        fail(place, field, f"{of}{half}; write the whole character, or take it out")


def half_character(text: str) -> int | None:
    """Where a text holds half of a surrogate pair, which is no character and which no tokenizer takes; or None."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _content(path: Path) -> bytes:
    path = Path(os.path.expanduser(path))  # unlike Path.expanduser, leaves an unknown `~name` as it is
    if path.is_dir():
        raise IsADirectoryError(f"{path.absolute()} is a folder; give a file; it holds {_listed(path)}.")
    if not path.exists():
        folder = path.absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}, so no {path.name} in it; check the path.")
        raise FileNotFoundError(f"There is no file {path.absolute()}; its folder holds {_listed(folder)}.")
    return path.read_bytes()


def _listed(folder: Path) -> str:
    """The first files of a folder, for an error message."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8) if names else "nothing"


def _unpacked(content: bytes, name: str) -> bytes:
    if not content.startswith(GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name} is a gzip file that is cut off or damaged ({error}); fetch it again.") from error


def _parquet_rows(content: bytes, name: str) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{name} is a Parquet file, and pyarrow, which reads it, is missing; `pip install pyarrow` brings it."
        ) from error
    try:
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is a Parquet file that is cut off or damaged ({error}); fetch it again.") from error


def _refuse_other_formats(content: bytes, name: str) -> None:
    found = next((known for start, known in OTHER_FORMATS.items() if content.startswith(start)), None)
    if content[257:262] == b"ustar":
        found = ("a tar archive", UNPACK)
    elif found is None and b"\0" in content[:4096]:
        found = ("a binary file of unknown kind", AS_JSON)
    if found is not None:
        raise DataError(f"{name} is {found[0]}; {found[1]}.")


def _lines(content: bytes, name: str) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), 1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: not UTF-8 ({error.reason}); {AS_UTF8}.") from error


def _parsed(text: str, name: str, line: int | None = None) -> Any:
    """The JSON value of a text: of one line, or of the whole file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where, what = f"{name}, line {line or error.lineno}", f"{error.msg} at column {error.colno}"
        way_out = "a file of rows is one JSON object a line, or one JSON array"
        raise DataError(f"{where}: not valid JSON ({what}); {way_out}.") from error
    except RecursionError as error:
        where = name if line is None else f"{name}, line {line}"
        raise DataError(f"{where}: nested too deep for Python's JSON reader; write one message a line.") from error
