"""Batches of a benchmark: row lengths from a distribution or a corpus, masks, and random labeled tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

VOCAB_SIZE, NUM_LABELS = 1000, 30
"""Sizes of the classifiers that are compared."""

BATCHES_PER_GROUP = 50
"""Number of batches whose texts are sorted together, as Trainer does with `group_by_length`."""


class LabeledBatch(NamedTuple):
    """A batch of random tokens: ids `[B, T]`, mask `[B, T]`, labels `[B]`."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


def draw_lengths(distribution: str, batch_size: int, time: int) -> list[int]:
    """Draw row lengths, the same in each call; the longest row has all columns.

    Args:
        distribution: "equal", "uniform" (from 1) or "log-normal" (median of a tenth of the columns, sigma 0.7).
        batch_size: Number of rows.
        time: Number of columns.

    Raises:
        ValueError: If `distribution` is unknown.
    """
    generator = torch.Generator().manual_seed(0)
    if distribution == "equal":
        lengths = torch.full((batch_size,), time)
    elif distribution == "uniform":
        lengths = torch.randint(1, time + 1, (batch_size,), generator=generator)
    elif distribution == "log-normal":
        lengths = (time / 10 * (0.7 * torch.randn(batch_size, generator=generator)).exp()).round().long().clamp(1, time)
    else:
        raise ValueError(f"`distribution` must be one of ['equal', 'uniform', 'log-normal'], got {distribution!r}.")
    lengths[0] = time
    return lengths.tolist()


def draw_random_batches(lengths: Sequence[int], batch_size: int, count: int) -> list[list[int]]:
    """Draw `count` batches of row lengths from a corpus at random, the same in each call."""
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))[: batch_size * count]
    return [[lengths[index] for index in rows] for rows in order.split(batch_size)]


def draw_grouped_batches(lengths: Sequence[int], batch_size: int, count: int) -> list[list[int]]:
    """Draw `count` batches of rows of similar lengths, as Trainer does with `group_by_length`.

    Random texts are sorted by length and cut into batches. The batches are taken at equal distances, from the longest on.
    """
    group = [length for rows in draw_random_batches(lengths, batch_size, BATCHES_PER_GROUP) for length in rows]
    group.sort(reverse=True)
    batches = [group[start : start + batch_size] for start in range(0, len(group), batch_size)]
    return [batches[index * len(batches) // count] for index in range(count)]


def build_right_padded_mask(lengths: Sequence[int], time: int | None = None) -> torch.Tensor:
    """Build a mask `[B, T]`, bool, True = token, with `time` columns or as many as the longest row has tokens."""
    return torch.arange(time or max(lengths)) < torch.tensor(lengths)[:, None]


def draw_labeled_batch(lengths: Sequence[int], device: torch.device, time: int | None = None) -> LabeledBatch:
    """Draw a right-padded batch; its tokens do not depend on the number of columns, `time`."""
    generator = torch.Generator().manual_seed(0)
    mask = build_right_padded_mask(lengths, time)
    input_ids = torch.zeros(mask.shape, dtype=torch.int64)
    input_ids[mask] = torch.randint(3, VOCAB_SIZE, (sum(lengths),), generator=generator)
    labels = torch.randint(NUM_LABELS, (len(lengths),), generator=generator)
    return LabeledBatch(input_ids.to(device), mask.long().to(device), labels.to(device))
