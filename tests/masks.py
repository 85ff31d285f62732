"""Random masks of every kind of padding."""

import torch


def ragged_mask(batch_size, time, kind, generator=None):
    """Draw a `[B, T]` bool mask: "right" or "left" padding, "holes" anywhere, "empty" as "holes" with an empty first row."""
    lengths = torch.randint(1, time + 1, (batch_size, 1), generator=generator)
    columns = torch.arange(time)
    if kind == "right":
        return columns < lengths
    if kind == "left":
        return columns >= time - lengths
    mask = torch.rand(batch_size, time, generator=generator) < 0.6
    mask[torch.arange(batch_size), lengths[:, 0] - 1] = True
    if kind == "empty":
        mask[0] = False
    return mask


MASK_KINDS = ("right", "left", "holes", "empty")
