"""Files of word vectors: word2vec (text and binary), GloVe and fastText `.vec`, each also compressed with gzip."""

import gzip
import io
import struct
import zlib
from codecs import BOM_UTF8
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from transformers.utils.logging import tqdm

from hf_maskattn.data.files import VECTOR_SUFFIXES

Entry = tuple[int, bytes, Sequence[float]]
"""Number of an entry, counted from 1, its word in UTF-8, and its vector."""

_MAX_SIZE = 2**16
_MAX_HEADER_BYTES = 100
_MAX_WORD_BYTES = 10_000
_FASTTEXT_MODEL = struct.pack("<i", 793712314)
"""First bytes of the models of fastText, which have the suffix of word2vec's binary files."""


class VectorFile:
    """A file of word vectors, which is read as a stream: only the vectors of the wanted words are kept in memory.

    A `.bin` file is in word2vec's binary format. A `.txt` or `.vec` file has a word and the numbers of its vector on each line,
    separated by spaces, and may have a first line with the number of words and the size of the vectors.

    Args:
        source: Path of the file.

    Attributes:
        size: Size of the vectors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has another suffix, or its first line is invalid.
    """

    def __init__(self, source: str):
        self.path = Path(source)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"The file of word vectors must exist, got {source!r}. There is no such file, relative to {Path.cwd()}."
            )
        suffix = Path(source.lower().removesuffix(".gz")).suffix
        if suffix not in VECTOR_SUFFIXES:
            raise ValueError(f"A file of word vectors must end with {', '.join(VECTOR_SUFFIXES)}, also with .gz, got {source}.")
        self.is_binary = suffix == ".bin"
        self.count: int | None
        with self._open() as file:
            self.count, self.size = self._read_header(file)

    def load(self, tokens: Sequence[str]) -> tuple[list[int], torch.Tensor]:
        """Read the vectors of tokens.

        Returns:
            The indices of the tokens that the file has, and their vectors, `[N, size]`, float32.

        Raises:
            ValueError: If an entry is broken, has another size or is not finite, a token has two entries, or the number of
                entries is not the one in the header.
        """
        wanted = {token.encode(): index for index, token in enumerate(tokens)}
        vectors: dict[int, torch.Tensor] = {}
        numbers: dict[int, int] = {}
        with self._open() as file:
            self._read_header(file)
            for number, word, values in (self._read_binary if self.is_binary else self._read_text)(file, wanted):
                index, vector = wanted[word], torch.tensor(values, dtype=torch.float32)
                if index in vectors:
                    raise self._error(number, f"{word.decode()!r} must have one vector, got another one in {numbers[index]}")
                if not vector.isfinite().all():
                    raise self._error(number, f"the vector of {word.decode()!r} must be finite")
                vectors[index], numbers[index] = vector, number
        found = sorted(vectors)
        return found, torch.stack([vectors[index] for index in found]) if found else torch.empty(0, self.size)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        is_compressed = self.path.suffix.lower() == ".gz"
        try:
            with self.path.open("rb") as raw:
                yield io.BufferedReader(gzip.GzipFile(fileobj=raw)) if is_compressed else raw
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{self.path} is not a complete gzip file: {error}. Copy it again.") from error

    def _error(self, number: int, problem: str) -> ValueError:
        unit = "entry" if self.is_binary else "line"
        return ValueError(f"{self.path}, {unit} {number}: {problem}. Correct the file, or copy it again.")

    def _read_header(self, file: BinaryIO) -> tuple[int | None, int]:
        """Read the number of words, None if it is not stated, and the size of the vectors, to the start of the entries."""
        start = 0
        if not self.is_binary:
            start = len(BOM_UTF8) if file.read(len(BOM_UTF8)) == BOM_UTF8 else 0
            file.seek(start)
        line = file.readline(_MAX_HEADER_BYTES) if self.is_binary else file.readline()
        if self.is_binary and line.startswith(_FASTTEXT_MODEL):
            raise ValueError(f"{self.path} must be in word2vec's binary format, got a model of fastText. Use its .vec file.")
        fields = line.split()
        count, size = None, len(fields) - 1
        if len(fields) == 2 and all(field.isdigit() for field in fields):
            count, size = int(fields[0]), int(fields[1])
        elif self.is_binary:
            raise self._error(1, "the file must start with a line of two numbers: the number of words and their size")
        else:
            if size < 1:
                found = line.decode(errors="replace").strip()[:20] or "an empty line"
                raise self._error(1, f"a word and the numbers of its vector are expected, got {found}")
            self._parse(1, fields[1:])
            file.seek(start)
        if not 1 <= size <= _MAX_SIZE:
            raise self._error(1, f"the size of the vectors must be in [1, {_MAX_SIZE}], got {size}")
        return count, size

    def _read_text(self, file: BinaryIO, wanted: Container[bytes]) -> Iterator[Entry]:
        """Yield the entries of wanted words in a text file, with the numbers of their lines."""
        first_line = 1 if self.count is None else 2
        num_entries = 0
        for number, line in enumerate(self._with_progress(file), first_line):
            line = line.rstrip(b" \r\n")
            if not line:
                continue
            num_entries += 1
            further = line.count(b" ") - self.size
            if further == 0 and line.partition(b" ")[0] not in wanted:
                continue
            fields = line.split(b" ")
            # GloVe has a few words with spaces. If there are only numbers after the first space, the line is too long.
            if further < 0 or (further > 0 and all(map(_is_number, fields[1:]))):
                raise self._error(
                    number,
                    f"a word and {self.size} numbers, separated by spaces, are expected, got {further + self.size} numbers",
                )
            word = b" ".join(fields[: -self.size])
            if word in wanted:
                yield number, word, self._parse(number, fields[-self.size :])
        if self.count not in (None, num_entries):
            raise ValueError(
                f"{self.path} must have {self.count:,} words, as its first line says, got {num_entries:,}. Copy it again, or "
                "correct the first line."
            )

    def _read_binary(self, file: BinaryIO, wanted: Container[bytes]) -> Iterator[Entry]:
        """Yield the entries of wanted words in a binary file, with their numbers."""
        num_bytes = self.size * struct.calcsize("<f")
        for number in self._with_progress(range(1, (self.count or 0) + 1)):
            word = bytearray()
            while (byte := file.read(1)) not in (b" ", b"") and len(word) <= _MAX_WORD_BYTES:
                word += byte
            values = file.read(num_bytes)
            if byte != b" " or len(values) < num_bytes:
                raise self._error(
                    number, f"a word, a space and {self.size} numbers are expected. The header has {self.count} words"
                )
            name = bytes(word).lstrip(b"\n")  # some writers end each entry with a line break
            if name in wanted:
                yield number, name, struct.unpack(f"<{self.size}f", values)
        if file.read(2).strip(b"\n"):
            raise self._error((self.count or 0) + 1, f"the file must end here, the header has {self.count} words")

    def _with_progress(self, entries):
        return tqdm(entries, total=self.count, desc=f"Vectors of {self.path.name}", unit=" words", disable=None)

    def _parse(self, number: int, fields: Sequence[bytes]) -> list[float]:
        try:
            return [float(field) for field in fields]
        except ValueError as error:
            raise self._error(number, f"a word and numbers are expected, {error}") from error


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
