"""Processors of scores that compare words with those of the source: each is told the real tokens of one source alone."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
)

_SETTINGS = {
    EncoderRepetitionPenaltyLogitsProcessor: ("encoder_repetition_penalty", (None, 1.0)),
    EncoderNoRepeatNGramLogitsProcessor: ("encoder_no_repeat_ngram_size", (None, 0)),
}


class PerSource(LogitsProcessor):
    """Gives the scores of each source to a processor of its own.

    Args:
        processors: One for each source, in order. The scores of a source are as many rows, side by side, as it has beams.
    """

    def __init__(self, processors: Sequence[LogitsProcessor]):
        self.processors = processors

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Process scores `[rows, V]` of the words that are to follow `input_ids` `[rows, T]`."""
        count = len(self.processors)
        parts = zip(self.processors, input_ids.chunk(count), scores.chunk(count), strict=True)
        return torch.cat([processor(ids, part) for processor, ids, part in parts])


def source_settings(config: GenerationConfig) -> list[str]:
    """List the settings of `generate()` that compare words with those of the source, where they are set."""
    return [name for name, nothing in _SETTINGS.values() if getattr(config, name) not in nothing]


def read_real_tokens(
    processors: LogitsProcessorList,
    config: GenerationConfig,
    given: Sequence[LogitsProcessor],
    ids: torch.Tensor,
    mask: torch.Tensor,
) -> LogitsProcessorList:
    """Have the processors that read the source read its real tokens alone, whatever stands at pads and in between.

    Args:
        processors: What `generate()` made of `config`, in which such processors are replaced.
        config: What `generate()` is to do.
        given: The processors that its caller made; they stay.
        ids: `[B, Tk]`, the sources.
        mask: `[B, Tk]`, bool, True = real.

    Returns:
        `processors`.
    """
    sources = [row[real][None] for row, real in zip(ids, mask, strict=True)]
    for place, processor in enumerate(processors):
        kind = type(processor)
        if kind in _SETTINGS and processor not in given:
            value = getattr(config, _SETTINGS[kind][0])
            processors[place] = PerSource([kind(value, source) for source in sources])
    return processors
