"""Runs a teacher once over texts: its outputs are kept in shards on disk, from which a killed pass resumes."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from hf_maskattn.data.cache import cache_folder, check_free_space, fingerprint
from hf_maskattn.training.teacher import Teacher, Words

logger = logging.getLogger(__name__)

_ROWS_PER_SHARD = 2048
_BYTES_PER_CHARACTER = 4
_EXPANSION = 3
"""A generated text is expected to be at most this many times as long as its source when free space is checked."""

Shard = dict[str, np.ndarray]


@dataclass(frozen=True)
class TeacherPass:
    """A pass of a teacher over some rows.

    Attributes:
        teacher: The teacher.
        kind: What is computed; the name of its folder in the cache.
        rows: Texts, or texts with words.
        compute: Function of a batch of rows that returns the arrays of a shard, and the number of truncated texts.
        is_complete: Function of the numbers of the rows of a shard and of the shard that returns whether it has all outputs.
        num_bytes: Expected size of the outputs for all rows.
        batch_size: Number of rows in a batch. It is not part of the key of the cache, because it changes only the rounding: a
            pass that ran out of memory resumes with a smaller one.
    """

    teacher: Teacher
    kind: str
    rows: Sequence[str | Words]
    compute: Callable[[Sequence[str | Words]], tuple[Shard, int]]
    is_complete: Callable[[Sequence[int], Shard], bool]
    num_bytes: int
    batch_size: int

    def run(self) -> Iterator[tuple[list[int], Shard]]:
        """Compute the shards that are not in the cache, longest rows first, so that a batch has little padding.

        Several processes may run the same pass: the first one computes, and the others wait.

        Yields:
            The numbers of the rows of each shard, and their outputs in this order.

        Raises:
            OSError: If the disk has too little space, or the cache cannot be written.
        """
        texts = [row.text if isinstance(row, Words) else row for row in self.rows]
        words = [str(row.starts) for row in self.rows if isinstance(row, Words)]
        folder = cache_folder(self.kind, fingerprint(self.teacher.fingerprint, *texts, *words))
        folder.mkdir(parents=True, exist_ok=True)
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        shards = [order[first : first + _ROWS_PER_SHARD] for first in range(0, len(order), _ROWS_PER_SHARD)]
        paths = [folder / f"{number:05}.safetensors" for number in range(len(shards))]
        with FileLock(folder / "lock"):
            missing = [(path, shard) for path, shard in zip(paths, shards, strict=True) if self._load(path, shard) is None]
            if missing:
                self._compute(folder, missing)
        num_truncated = 0
        for path, numbers in zip(paths, shards, strict=True):
            stored = self._load(path, numbers)
            if stored is None:
                raise OSError(f"{path} was removed or damaged while it was used. Run the command again.")
            num_truncated += int(stored["num_truncated"][0])
            yield numbers, stored
        if num_truncated:
            logger.warning(
                f"The teacher read {num_truncated:,} of {len(texts):,} texts only up to its limit of {self.teacher.max_length} "
                "tokens."
            )

    def _compute(self, folder: Path, missing: list[tuple[Path, list[int]]]) -> None:
        num_rows = sum(len(numbers) for _, numbers in missing)
        check_free_space(folder, self.num_bytes * num_rows // len(self.rows), "The cache of the teacher's outputs")
        with tqdm(total=num_rows, desc="Teacher", unit=" texts", disable=not sys.stderr.isatty()) as progress:
            for path, numbers in missing:
                parts, num_truncated = [], 0
                for first in range(0, len(numbers), self.batch_size):
                    batch = [self.rows[number] for number in numbers[first : first + self.batch_size]]
                    part, truncated = self.compute(batch)
                    parts.append(part)
                    num_truncated += truncated
                    progress.update(len(batch))
                shard = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
                scratch = path.with_suffix(".part")  # renamed when it is complete
                save_file({**shard, "num_truncated": np.array([num_truncated])}, scratch)
                os.replace(scratch, path)
        self.teacher.release()

    def _load(self, path: Path, numbers: Sequence[int]) -> Shard | None:
        """Load a shard. None if it does not exist, or a power failure truncated it."""
        try:
            shard = load_file(path)
        except (OSError, SafetensorError):
            return None
        return shard if "num_truncated" in shard and self.is_complete(numbers, shard) else None


def teacher_logits(teacher: Teacher, rows: Sequence[str | Words], *, batch_size: int, device: torch.device) -> np.ndarray:
    """Return the logits of a teacher with labels for texts or words, from the cache if they are there.

    Returns:
        `[N, num_labels]`, float32: one row for each text or each word, in order; NaN for words that the teacher did not read.

    Raises:
        OSError: If the disk has too little space, or the cache cannot be written.
    """
    lengths = [len(row.starts) if isinstance(row, Words) else 1 for row in rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    logits = np.empty((int(starts[-1]), teacher.config.num_labels), dtype=np.float32)

    def compute(batch: Sequence[str | Words]) -> tuple[Shard, int]:
        values, num_truncated = teacher.compute_logits(batch, device)
        return {"logits": values}, num_truncated

    def is_complete(numbers: Sequence[int], shard: Shard) -> bool:
        shape = (sum(lengths[number] for number in numbers), teacher.config.num_labels)
        return "logits" in shard and shard["logits"].shape == shape

    logits_pass = TeacherPass(teacher, "teacher_logits", rows, compute, is_complete, logits.nbytes, batch_size)
    for numbers, shard in logits_pass.run():
        positions = [np.arange(starts[number], starts[number + 1]) for number in numbers]
        logits[np.concatenate(positions)] = shard["logits"]
    return logits


def teacher_texts(teacher: Teacher, sources: Sequence[str], *, batch_size: int, device: torch.device) -> list[str]:
    """Return the text that a teacher generates by beam search for each source, from the cache if they are there.

    Raises:
        OSError: If the disk has too little space, or the cache cannot be written.
    """
    texts = [""] * len(sources)

    def compute(batch: Sequence[str | Words]) -> tuple[Shard, int]:
        generated, num_truncated = teacher.generate([str(source) for source in batch], device)
        encoded = [text.encode() for text in generated]
        characters = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        return {"lengths": np.array([len(text) for text in encoded]), "characters": characters}, num_truncated

    def is_complete(numbers: Sequence[int], shard: Shard) -> bool:
        return "lengths" in shard and shard["lengths"].shape == (len(numbers),)

    num_bytes = _EXPANSION * _BYTES_PER_CHARACTER * sum(map(len, sources))
    text_pass = TeacherPass(teacher, "teacher_texts", sources, compute, is_complete, num_bytes, batch_size)
    for numbers, shard in text_pass.run():
        ends = np.cumsum(shard["lengths"])
        for number, start, end in zip(numbers, ends - shard["lengths"], ends, strict=True):
            texts[number] = shard["characters"][start:end].tobytes().decode()
    return texts
