"""Rows of a stream -> a batch for masked language modeling, with other masks in each pass over the rows."""

from typing import Any

from hf_maskattn.data.row_stream import RowStream
from hf_maskattn.data.token_masking import RowMaskingCollator


class StreamMaskingCollator:
    """Masks the rows of a stream, in each pass anew; those of a batch as in the pass of its last row.

    It runs in the process that reads the rows, where the stream knows its pass.

    Args:
        collator: How rows are masked.
        stream: What they come from.
    """

    def __init__(self, collator: RowMaskingCollator, stream: RowStream):
        self._collator = collator
        self._own: RowMaskingCollator | None = None
        self._stream = stream

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of the rows that the stream gave last."""
        if self._own is None:
            # Made in this process: the workers of a dataloader need not be in the same pass.
            self._own = self._collator.with_fixed_masks()
        self._own.set_epoch(self._stream.current_pass)
        return self._own(rows)
