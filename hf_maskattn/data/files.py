"""Data files: name patterns, formats, compression and text in UTF-8."""

import bz2
import glob
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

FileKind = Literal["csv", "json", "parquet"]

_SEPARATORS = {";": "';'", "\t": "'\\t'", "|": "'\"|\"'", ",": "','"}
"""Separators of CSV cells, and how each is written on the command line."""

_KINDS: dict[str, FileKind] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
FILE_SUFFIXES = tuple(_KINDS)
"""Suffixes of the files that can be read."""

COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes that may follow those of text files."""

DICTIONARY_SUFFIX = ".dict"
"""Suffix of pronouncing dictionaries."""

VECTOR_SUFFIXES = (".txt", ".vec", ".bin")
"""Suffixes of files of word vectors, which `.gz` may follow."""


def names_vector_file(name: str) -> bool:
    """Return whether a name belongs to a file of word vectors and not to a model: by its suffix, or as it is a file."""
    has_suffix = name.lower().removesuffix(".gz").endswith(VECTOR_SUFFIXES)
    return Path(name).is_file() or (has_suffix and not Path(name).is_dir())


def names_rows(path: str | Path) -> bool:
    """Return whether a name belongs to a file of rows, by its suffix."""
    return TableFile(str(path)).kind is not None


@dataclass(frozen=True)
class TableFile:
    """A file of rows.

    Attributes:
        path: Local path, or a URL such as "hf://datasets/user/name@revision/train.csv".
        separator: Character between the cells of a CSV file. `None` for a tab in `.tsv` files, otherwise a comma.
        copy: Local copy of a remote file, which is read instead.
    """

    path: str
    separator: str | None = None
    copy: str | None = None

    @property
    def name(self) -> str:
        """File name without its folder."""
        return PurePosixPath(Path(self.path).as_posix()).name

    @property
    def compression(self) -> str | None:
        """Suffix of the compression; `None` for uncompressed files."""
        suffix = PurePosixPath(self.name).suffix.lower()
        return suffix if suffix in COMPRESSION_SUFFIXES else None

    @property
    def suffix(self) -> str:
        """Suffix of the file, without the one of its compression."""
        name = self.name if self.compression is None else self.name[: -len(self.compression)]
        return PurePosixPath(name).suffix.lower()

    @property
    def kind(self) -> FileKind | None:
        """Format of the file, by its suffix; `None` for unsupported formats."""
        kind = _KINDS.get(self.suffix)
        return None if kind == "parquet" and self.compression is not None else kind

    @property
    def is_remote(self) -> bool:
        """Whether the path is a URL."""
        return "://" in self.path

    def __str__(self) -> str:
        """Format the path for error messages."""
        return re.sub(r"^hf://datasets/([^@]+)@[^/]+/", r"\1/", self.path)


def expand_pattern(pattern: str | Path) -> list[Path]:
    """List the files that match a pattern.

    Args:
        pattern: File name, or a pattern such as "data/train-*.parquet". Leading folders that exist under their literal name,
            such as "data[1]", are not treated as patterns; neither is an existing file.

    Returns:
        Existing files, sorted by name.
    """
    parts = list(Path(pattern).parts)
    existing = Path()
    while parts and (existing / parts[0]).exists():
        existing /= parts.pop(0)
    return sorted(Path(name) for name in glob.glob(str(Path(glob.escape(str(existing)), *parts)), recursive=True))


def list_files(pattern: str | Path, separator: str | None = None) -> list[TableFile]:
    """List the data files that match a pattern, and validate them.

    Args:
        pattern: File name or pattern; see `expand_pattern`.
        separator: Character between the cells of CSV files. `None` for a tab in `.tsv` files, otherwise a comma.

    Returns:
        At least one file, sorted by name.

    Raises:
        FileNotFoundError: No file exists under this name or matches the pattern.
        ValueError: A folder, an unknown suffix, files of several formats, an empty file, or an invalid separator.
    """
    path = Path(pattern)
    paths = [path]
    if glob.has_magic(str(path)) and not path.exists():
        paths = expand_pattern(path)
        if not paths:
            raise FileNotFoundError(f"{path}: no file matches this pattern in {Path.cwd()}. Correct the pattern.")
    files = [TableFile(str(path), separator) for path in paths]
    for file in files:
        if Path(file.path).is_dir():
            raise ValueError(f"{file} must be a file, got a folder. Name its files, such as {Path(file.path) / '*.jsonl'}.")
        if file.kind is None:
            raise ValueError(
                f"{file}: the suffix must be one of {', '.join(FILE_SUFFIXES)}, got {Path(file.path).suffix!r}. Convert "
                f"the file to one of these formats (text files may be compressed: {', '.join(COMPRESSION_SUFFIXES)})."
            )
        if file.kind != files[0].kind:
            raise ValueError(
                f"{path}: all matching files must have the same format, got {files[0].name} and {file.name}. Use a pattern "
                "that matches one format."
            )
        if not Path(file.path).is_file():
            raise FileNotFoundError(f"{file}: no such file in {Path(file.path).absolute().parent}. Correct the path.")
        if Path(file.path).stat().st_size == 0:
            raise empty_file_error(file)
    check_separator(separator, files)
    return files


def check_separator(separator: str | None, files: Sequence[TableFile]) -> None:
    """Validate the separator of CSV files.

    Raises:
        ValueError: The separator is not a single character, or the files are not CSV.
    """
    if separator is None:
        return
    if (len(separator) != 1 and separator != r"\t") or separator in '"\r\n':
        raise ValueError(
            f"csv_separator must be one character other than a double quote or a line break, got {separator!r}. Quote it "
            "on the command line, such as data.csv_separator=';' or data.csv_separator='\"|\"'."
        )
    if files[0].kind != "csv":
        raise ValueError(f"csv_separator={separator!r} has no effect on {files[0]}, which is not a CSV file. Remove it.")


def separator_hint(columns: Sequence[str]) -> str | None:
    """Suggest a separator for a header that was read as a single cell; `None` if there is nothing to suggest."""
    candidates = set(columns[0]) & _SEPARATORS.keys() if len(columns) == 1 else set()
    if not candidates:
        return None
    separator = max(sorted(candidates), key=columns[0].count)
    return (
        f"The only column is {columns[0]!r}, whose cells seem to be separated by {separator!r}. Set "
        f"data.csv_separator={_SEPARATORS[separator]}."
    )


@contextmanager
def open_bytes(file: TableFile) -> Iterator[IO[bytes]]:
    """Open a file, or its local copy, and decompress it.

    Raises:
        OSError: The file cannot be opened.
        ImportError: The package that decompresses the file is not installed.
    """
    with _open_raw(file.copy or file.path) as raw, _decompressor(file)(raw) as content:
        yield content


def _open_raw(path: str) -> IO[bytes]:
    if "://" not in path:
        return open(path, "rb")
    import fsspec

    return fsspec.open(path, "rb").open()


def _decompressor(file: TableFile) -> Callable[[IO[bytes]], Any]:
    if file.compression == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise ImportError(f"{file}: reading .zst files requires zstandard. Run: pip install zstandard") from error
        return partial(zstandard.open, mode="rb")
    openers: dict[str | None, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers.get(file.compression, nullcontext)


@contextmanager
def open_lines(file: TableFile, newline: str) -> Iterator[IO[str]]:
    """Open a file as UTF-8 text; `newline` as in `open`, exceptions as in `open_bytes`."""
    with open_bytes(file) as content, io.TextIOWrapper(content, encoding="utf-8-sig", newline=newline) as lines:
        yield lines


def check_utf8(file: TableFile) -> None:
    """Check that a file is UTF-8.

    Raises:
        ValueError: The file is not UTF-8; the message contains the line.
    """
    with open_bytes(file) as content:
        for number, line in enumerate(content, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8_error(file, number, line[error.start]) from error


def has_unpaired_surrogate(value: Any) -> bool:
    """Return whether a text, or a text in a value of JSON, has half of a surrogate pair, which UTF-8 cannot encode."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not UTF-8; the message contains the line.
    """
    return split_lines(path.read_bytes(), str(path))


def split_lines(content: bytes, origin: str) -> list[str]:
    """Split UTF-8 into lines, with errors as in `read_lines`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8_error(origin, content.count(b"\n", 0, error.start) + 1, content[error.start]) from error
    # str.splitlines() would also split at characters inside of a text, such as U+2028.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _not_utf8_error(origin: object, line: int, byte: int) -> ValueError:
    return ValueError(f"{origin}, line {line}: not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8.")


def unreadable_error(name: object, error: Exception) -> ValueError:
    """Build the error for rows that cannot be read, with the reason."""
    reason = error.__cause__ or error
    return ValueError(f"{name}: cannot be read: {type(reason).__name__}: {' '.join(str(reason).split())}")


def empty_file_error(file: object) -> ValueError:
    """Build the error for a file without rows."""
    return ValueError(f"{file}: the file has no rows. Add at least one.")
