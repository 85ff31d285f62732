"""Generate texts with an encoder-decoder, in batches; transformers 5 has no text-to-text pipeline."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.data.encoding import count_truncated_tokens
from hf_maskattn.data.tokenizers import is_unknown
from hf_maskattn.inspection.attention_maps import AlignmentMap, alignment_maps
from hf_maskattn.metrics.text import decode_texts


@dataclass(frozen=True)
class GeneratedText:
    """The texts that were generated for a source.

    Attributes:
        texts: `generation_config.num_return_sequences` texts, the best first.
        alignment: Alignment of the first text with the source, if requested.
        cut_tokens: Number of tokens of the source that were truncated.
        is_unknown: Whether all tokens of the source are unknown.
        scores: Score of each text by which the beam search selects it, if requested: its log-probability, divided by its
            number of tokens to the power of `length_penalty`. None without a beam search.
    """

    texts: list[str]
    alignment: AlignmentMap | None
    cut_tokens: int = 0
    is_unknown: bool = False
    scores: list[float] | None = None


def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    batch_size: int,
    max_length: int | None = None,
    with_alignment: bool = False,
    with_scores: bool = False,
    **settings: Any,
) -> Iterator[GeneratedText]:
    """Generate texts with the `generation_config` of a model, on the accelerator if there is one.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer.
        texts: The sources.
        batch_size: Number of sources per batch, padded to the longest.
        max_length: Largest number of tokens of a source, with special tokens; None truncates nothing.
        with_alignment: Whether to compute alignments.
        with_scores: Whether to return the scores of a beam search, for which `generate()` keeps the scores of all steps.
        **settings: Further arguments of `generate()`, such as `num_beams`.

    Yields:
        The generated texts of each source, in order.
    """
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        inputs = tokenizer(
            batch,
            padding=True,
            truncation=max_length is not None,
            max_length=max_length,
            return_token_type_ids=False,
            return_tensors="pt",
            verbose=False,  # no warning about texts that are longer than those of the training
        ).to(model.device)
        cut_tokens = count_truncated_tokens(inputs)
        generated = model.generate(
            **inputs, tokenizer=tokenizer, return_dict_in_generate=True, output_scores=with_scores, **settings
        )
        sequences = generated.sequences.unflatten(0, (len(batch), -1))  # [B, num_return_sequences, T]
        maps = alignment_maps(model, tokenizer, inputs, sequences[:, 0]) if with_alignment else [None] * len(batch)
        scores = generated.get("sequences_scores")
        for row, encoding in enumerate(inputs.encodings):
            yield GeneratedText(
                decode_texts(tokenizer, sequences[row].tolist()),
                maps[row],
                cut_tokens=cut_tokens[row],
                is_unknown=is_unknown(encoding.ids, encoding.special_tokens_mask, tokenizer.unk_token_id),
                scores=None if scores is None else scores.view(len(batch), -1)[row].tolist(),
            )
