"""A file of rows: what its name says about it, its bytes and its lines, and how its faults are told."""

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import fsspec

FileKind = Literal["csv", "json", "parquet"]

_KINDS: dict[str, FileKind] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
FILE_ENDINGS = tuple(_KINDS)
"""The endings of the files that can be read."""

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""The endings that may follow those of text files."""


@dataclass(frozen=True)
class TableFile:
    """A file of rows.

    Args:
        path: Where it is: a local path, or an address such as "hf://datasets/user/name@revision/train.csv".
        separator: Character between the cells of a CSV file; `None` for a tab in `.tsv` files, else a comma.
        copy: Local copy to read, of a file at an address.
    """

    path: str
    separator: str | None = None
    copy: str | None = None

    @property
    def name(self) -> str:
        """Name of the file without its folder."""
        return PurePosixPath(Path(self.path).as_posix()).name

    @property
    def compression(self) -> str | None:
        """Ending of the compression, `None` without one."""
        ending = PurePosixPath(self.name).suffix.lower()
        return ending if ending in COMPRESSIONS else None

    @property
    def ending(self) -> str:
        """Ending of the file, without that of the compression."""
        name = self.name if self.compression is None else self.name[: -len(self.compression)]
        return PurePosixPath(name).suffix.lower()

    @property
    def kind(self) -> FileKind | None:
        """What the file holds, by its ending; `None` where it cannot be read."""
        kind = _KINDS.get(self.ending)
        return None if kind == "parquet" and self.compression is not None else kind

    @property
    def is_remote(self) -> bool:
        """Whether the file is at an address, and not on this machine."""
        return "://" in self.path

    def __str__(self) -> str:
        """Name the file for people."""
        return re.sub(r"^hf://datasets/([^@]+)@[^/]+/", r"\1/", self.path)


@contextmanager
def open_bytes(file: TableFile) -> Iterator[IO[bytes]]:
    """Open a file, or its copy, and decompress it.

    Raises:
        OSError: The file cannot be opened.
        ImportError: The package that decompresses it is missing.
    """
    path = file.copy or file.path
    with fsspec.open(path, "rb").open() if "://" in path else open(path, "rb") as raw:
        if file.compression is None:
            yield raw
        else:
            with _decompressor(file)(raw) as content:
                yield content


def _decompressor(file: TableFile) -> Callable[[IO[bytes]], Any]:
    if file.compression == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise ImportError(f"{file}: to read .zst files, run: pip install zstandard") from error
        return partial(zstandard.open, mode="rb")
    openers: dict[str | None, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers[file.compression]


@contextmanager
def open_lines(file: TableFile, newline: str) -> Iterator[IO[str]]:
    """Open a file as text in UTF-8; see `open` for `newline`, and `open_bytes` for what it raises."""
    with open_bytes(file) as content, io.TextIOWrapper(content, encoding="utf-8-sig", newline=newline) as lines:
        yield lines


def check_utf8(file: TableFile) -> None:
    """Find bytes that are no UTF-8.

    Raises:
        ValueError: There are some; the message names the line.
    """
    with open_bytes(file) as content:
        for number, line in enumerate(content, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{file}, line {number}: not UTF-8 ({error.reason}: byte 0x{line[error.start]:02x}); save the file as UTF-8"
                ) from error


def unreadable(name: object, error: Exception) -> ValueError:
    """Say that rows could not be read, and why."""
    reason = error.__cause__ or error
    return ValueError(f"{name}: could not be read: {type(reason).__name__}: {' '.join(str(reason).split())}")


def no_rows(file: object) -> ValueError:
    """Say that a file has no rows."""
    return ValueError(f"{file}: the file has no rows; give a file with at least one")
