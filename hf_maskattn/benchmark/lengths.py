"""How long the rows of a batch are: drawn from a distribution, or from the lengths of a real corpus."""

from collections.abc import Sequence

import torch

TEXTS_IN_A_GROUP = 50
"""Batches whose texts are sorted together, as Trainer groups by length."""


def draw_lengths(spread: str, batch: int, time: int) -> list[int]:
    """Draw the lengths of a batch, the same at every call; the longest row has all columns.

    Args:
        spread: "equal", "uniform" (from 1 on) or "log-normal" (median a tenth of the columns, sigma 0.7; most rows are short).
        batch: Number of rows.
        time: Number of columns.

    Raises:
        ValueError: If `spread` is unknown.
    """
    generator = torch.Generator().manual_seed(0)
    if spread == "equal":
        lengths = torch.full((batch,), time)
    elif spread == "uniform":
        lengths = torch.randint(1, time + 1, (batch,), generator=generator)
    elif spread == "log-normal":
        lengths = (time / 10 * (0.7 * torch.randn(batch, generator=generator)).exp()).round().long().clamp(1, time)
    else:
        raise ValueError(f"spread={spread!r} is unknown; choose from ['equal', 'uniform', 'log-normal'].")
    lengths[0] = time
    return lengths.tolist()


def random_batches(lengths: Sequence[int], size: int, count: int) -> list[list[int]]:
    """Draw batches from a corpus at random: `count` of `size` lengths each, the same at every call."""
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))[: size * count]
    return [[lengths[index] for index in rows] for rows in order.split(size)]


def grouped_batches(lengths: Sequence[int], size: int, count: int) -> list[list[int]]:
    """Draw batches of rows of about equal lengths: `count` of them at equal distances, from the longest on, out of one group.

    A group of random texts is sorted and cut into batches, as Trainer does with `group_by_length`.
    """
    group = [length for rows in random_batches(lengths, size, TEXTS_IN_A_GROUP) for length in rows]
    group.sort(reverse=True)
    batches = [group[start : start + size] for start in range(0, len(group), size)]
    return [batches[index * len(batches) // count] for index in range(count)]


def right_padded_mask(lengths: Sequence[int], time: int | None = None) -> torch.Tensor:
    """Write lengths as a mask `[B, T]`, bool, True = real, with `time` columns or those of the longest row."""
    return torch.arange(time or max(lengths)) < torch.tensor(lengths)[:, None]
