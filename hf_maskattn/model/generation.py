"""`generate()` for a model with a recurrent state: the state itself, what is unsupported, and the mixin.

All settings of `generate()` for encoder-decoders of transformers work, with the same results as scoring the whole target
again at each step: greedy search, beam search and sampling with every setting of length, repetition and token choice;
constraints by `prefix_allowed_tokens_fn`, custom processors, criteria and streamers; all outputs; a source given as
`encoder_outputs`, as `inputs_embeds`, or as the state that an earlier call returned; a target that starts with
`decoder_input_ids`; a custom decoding loop by `custom_generate`. What has no meaning for a recurrent decoder is listed in
`UNSUPPORTED` and raises before anything is computed. Searches that transformers moved to the Hub (groups of beams, constraints
by `force_words_ids`) raise there, until that code is trusted.

Padding has no effect here either: settings that compare generated tokens with those of the source read only its tokens, and
whether a target still needs the start token is decided for each row, by its first token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch.nn.functional import pad
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation import GenerationMixin
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
)
from transformers.modeling_outputs import Seq2SeqModelOutput

from .masking import TokenColumns, build_token_mask, check_values, is_host_readable

CACHE_NAME = "cache" if "cache" in {field.name for field in fields(Seq2SeqModelOutput)} else "past_key_values"
"""The name that this version of transformers has for the state that `generate()` passes from step to step."""


class Memory(NamedTuple):
    """What the decoder attends to, projected once for any number of steps.

    Attributes:
        keys: The projected annotations of S sources, `[S, Tk, A]`; for "ragged" the flat list of tokens, `[N, A]`.
        values: The annotations, `[S, Tk, H]` or `[N, H]`.
        mask: `[S, Tk]`, bool, True = token.
        columns: Which columns of the source the Tk columns are.
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    columns: TokenColumns

    def padded_values(self) -> torch.Tensor:
        """Return the annotations as `[S, Tk, H]`, finite at padding, for any implementation of attention."""
        if self.values.dim() == 3:
            return self.values
        padded = self.values.new_zeros(*self.mask.shape, self.values.shape[1])
        return padded.index_put(self.mask.nonzero(as_tuple=True), self.values)

    def select_rows(self, rows: torch.Tensor) -> "Memory":
        """Select rows in any order, also repeatedly: int64 `[R]`."""
        mask = self.mask.index_select(0, rows)
        if self.keys.dim() == 3:
            return Memory(self.keys.index_select(0, rows), self.values.index_select(0, rows), mask, self.columns)
        token_numbers = torch.zeros_like(self.mask, dtype=torch.long)
        token_numbers[self.mask] = torch.arange(len(self.keys), device=rows.device)
        tokens = token_numbers.index_select(0, rows)[mask]
        return Memory(self.keys.index_select(0, tokens), self.values.index_select(0, tokens), mask, self.columns)


def count_rows_per_source(memory: torch.Tensor, mask: torch.Tensor) -> int:
    """Count the consecutive rows that have the same source, as `generate()` repeats each for its beams or samples.

    Args:
        memory: `[B, Tk, H]`.
        mask: `[B, Tk]`, bool.

    Returns:
        n, where each of B / n sources is the memory of n rows, bit for bit. 1 where there is no such n, where a gradient may be
        needed, and where the host does not know the memory without a sync.
    """
    if torch.is_grad_enabled() or not is_host_readable(memory):
        return 1
    batch_size = len(memory)
    rows = next((row for row in range(1, batch_size) if not torch.equal(memory[row], memory[0])), batch_size)
    if rows < 2 or batch_size % rows:
        return 1
    for tensor in (memory, mask):
        by_source = tensor.unflatten(0, (batch_size // rows, rows))
        if not bool((by_source == by_source[:, :1]).all()):
            return 1
    return rows


@dataclass
class DecodingState:
    """The state of a recurrent decoder after some target tokens; `generate()` passes it from step to step.

    A forward pass leaves the state that it receives unchanged and returns a new one, so that any number of continuations may
    start from one state. Its size does not grow with the target.

    Attributes:
        layers: The state of each layer, `[B, H]`; for an LSTM its cell as well.
        context: The latest context, `[B, memory width]`; None without input feeding.
        memory: What the decoder attends to: one source for each row, or one for several consecutive rows.
        seen_tokens: Number of target tokens that were read, padding included.
    """

    layers: tuple[tuple[torch.Tensor, ...], ...]
    context: torch.Tensor | None
    memory: Memory
    seen_tokens: int = 0

    # Attributes of every cache of transformers: whether its size is fixed for a compiler, and whether it can drop tokens.
    is_compileable = False
    is_croppable = False
    is_linear = (False,)

    @property
    def batch_size(self) -> int:
        """Number of rows B."""
        return len(self.layers[0][0])

    @property
    def rows_per_source(self) -> int:
        """Number of consecutive rows that attend to the same source: beams or samples."""
        return self.batch_size // len(self.memory.mask) if self.batch_size else 1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of target tokens that were read, as every cache of transformers does."""
        return self.seen_tokens

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Reorder rows in place, to the beams that a search continues with.

        Beams trade places only within their own source, so that the memory stays where it is.

        Args:
            beam_idx: `[B]`, int, the row that each row continues.
        """
        beam_idx = beam_idx.to(self.memory.mask.device)
        self._replace_tensors(lambda tensor: tensor.index_select(0, beam_idx))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows, in place, with their sources: `[R]`, int."""
        indices = indices.to(self.memory.mask.device)
        self.memory = self.memory.select_rows(indices // self.rows_per_source)
        self._replace_tensors(lambda tensor: tensor.index_select(0, indices))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row in place, for its beams or samples; they share its source."""
        if repeats == 0:
            no_rows = torch.tensor([], dtype=torch.long, device=self.memory.mask.device)
            self.memory = self.memory.select_rows(no_rows)
        self._replace_tensors(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def _replace_tensors(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.layers = tuple(tuple(function(tensor) for tensor in layer) for layer in self.layers)
        if self.context is not None:
            self.context = function(self.context)


_KEY_VALUE_CACHE = (
    "is not supported, because it configures a cache of keys and values that grows with the text, and the state of a recurrent "
    "decoder has a constant size. Remove it."
)
_ASSISTED = (
    "is not supported, because it proposes tokens of which some are taken back, and a recurrent state cannot forget a token. "
    "Remove it: greedy search, beam search and sampling work."
)
_NEGATIVE_PROMPT = (
    "is not supported, because it reads a negative prompt with the decoder alone, which needs a source here. Remove it, or "
    "pass generate() a logits_processor that scores the negative source."
)

UNSUPPORTED = {
    "cache_implementation": _KEY_VALUE_CACHE,
    "cache_config": _KEY_VALUE_CACHE,
    "max_cache_len": _KEY_VALUE_CACHE,
    "prefill_chunk_size": _KEY_VALUE_CACHE,
    "compile_config": (
        "is not supported, because it compiles steps over keys and values of a fixed size, which a recurrent decoder does not "
        "have. Remove it, and compile the model: model.forward = torch.compile(model.forward)."
    ),
    "assistant_model": _ASSISTED,
    "is_assistant": _ASSISTED,
    "prompt_lookup_num_tokens": _ASSISTED,
    "assistant_early_exit": _ASSISTED,
    "speculation_type": _ASSISTED,
    "use_mtp": _ASSISTED,
    "penalty_alpha": (
        "is not supported, because contrastive search compares the states of several next tokens, and a recurrent decoder "
        "keeps one. Remove it, or sample (do_sample=True) with repetition_penalty or no_repeat_ngram_size."
    ),
    "dola_layers": (
        "is not supported, because it contrasts the tokens that several layers would choose, and here the output layer reads "
        "the last layer together with the context. Remove it."
    ),
    "guidance_scale": _NEGATIVE_PROMPT,
    "negative_prompt_ids": _NEGATIVE_PROMPT,
    "negative_prompt_attention_mask": _NEGATIVE_PROMPT,
    "token_healing": (
        "is not supported, because it generates from the prompt alone, without its source. Remove it, and pass "
        "decoder_input_ids that end where a token ends."
    ),
}
"""Settings of `generate()` that raise, with the reason and the way out."""

_WITHOUT_EFFECT = {"guidance_scale": 1}


def reject_unsupported(**settings: object) -> None:
    """Raise for settings that a recurrent decoder does not support; None and False mean that one is not set.

    Raises:
        ValueError: If one is set; names it.
    """
    for name, value in settings.items():
        if value is not None and value is not False and value != _WITHOUT_EFFECT.get(name):
            shown = f"={value!r}" if isinstance(value, str | int | float) else ""
            raise ValueError(f"{name}{shown} {UNSUPPORTED[name]}")


def reject_unsupported_config(config: GenerationConfig) -> None:
    """Raise for generation settings that a recurrent decoder does not support, before anything is computed.

    Raises:
        ValueError: If one is set; names it.
    """
    reject_unsupported(**{name: getattr(config, name) for name in UNSUPPORTED if hasattr(config, name)})


class PerSourceLogitsProcessor(LogitsProcessor):
    """Applies a processor of its own to the scores of each source.

    Args:
        processors: One for each source, in order. The scores of a source are as many consecutive rows as it has beams.
    """

    def __init__(self, processors: Sequence[LogitsProcessor]):
        self.processors = processors

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Process scores `[rows, V]` of the tokens that follow `input_ids` `[rows, T]`."""
        count = len(self.processors)
        parts = zip(self.processors, input_ids.chunk(count), scores.chunk(count), strict=True)
        return torch.cat([processor(ids, part) for processor, ids, part in parts])


_SOURCE_PROCESSORS = {
    EncoderRepetitionPenaltyLogitsProcessor: ("encoder_repetition_penalty", (None, 1.0)),
    EncoderNoRepeatNGramLogitsProcessor: ("encoder_no_repeat_ngram_size", (None, 0)),
}


def find_source_settings(config: GenerationConfig) -> list[str]:
    """List the settings of `generate()` that compare tokens with those of the source, where they are set."""
    return [name for name, unset in _SOURCE_PROCESSORS.values() if getattr(config, name) not in unset]


def restrict_to_source_tokens(
    processors: LogitsProcessorList,
    config: GenerationConfig,
    custom: Sequence[LogitsProcessor],
    ids: torch.Tensor,
    mask: torch.Tensor,
) -> LogitsProcessorList:
    """Make the processors that read the source read only its tokens, whatever stands at padding.

    Args:
        processors: The processors that `generate()` built from `config`.
        config: The generation settings.
        custom: The processors that the caller passed; they stay as they are.
        ids: `[B, Tk]`, the sources.
        mask: `[B, Tk]`, bool, True = token.

    Returns:
        The processors, those of the source replaced.
    """
    sources = [row[is_token][None] for row, is_token in zip(ids, mask, strict=True)]
    replaced = LogitsProcessorList()
    for processor in processors:
        kind = type(processor)
        if kind in _SOURCE_PROCESSORS and processor not in custom:
            value = getattr(config, _SOURCE_PROCESSORS[kind][0])
            processor = PerSourceLogitsProcessor([kind(value, source) for source in sources])
        replaced.append(processor)
    return replaced


class StatefulGenerationMixin(GenerationMixin):
    """`generate()` over a `DecodingState`: continues from a given state, and raises for what such a state does not support."""

    def prepare_inputs_for_generation(self, input_ids, next_sequence_length=None, is_first_iteration=False, **kwargs):
        """Prepare one step of `generate()`; where it starts from a state, the tokens that the state has read are left out."""
        state = kwargs.get(CACHE_NAME)
        if state is not None and next_sequence_length is not None and not is_first_iteration:
            # One more token needs no preparation; transformers would inspect signatures at every step to find that out.
            new_tokens = input_ids[:, -next_sequence_length:].to(state.memory.mask.device)
            return {"decoder_input_ids": new_tokens, **{name: value for name, value in kwargs.items() if name != "labels"}}
        if state is not None and is_first_iteration:
            if kwargs.get("use_cache") is False:
                raise ValueError(
                    f"use_cache must be True with {CACHE_NAME}, got False, which reads the whole target at each step. Remove "
                    "one of the two."
                )
            next_sequence_length = input_ids.shape[1] - state.get_seq_length()
            if next_sequence_length < 1:
                raise ValueError(
                    f"decoder_input_ids must be longer than the {state.get_seq_length()} tokens that the state has read, got "
                    f"{input_ids.shape[1]} tokens. Pass the whole sequence, of which at least the last token was not read."
                )
        mask = kwargs.get("decoder_attention_mask")
        if is_first_iteration and mask is not None:
            ends_with_token = mask[:, -1] != 0
            check_values(
                ends_with_token,
                lambda: (
                    "decoder_attention_mask must end with 1, got 0 at the end of row "
                    f"{int((~ends_with_token).nonzero()[0])}. Pad the target on the left."
                ),
                "decoder_attention_mask ends with 0",
            )
        return super().prepare_inputs_for_generation(
            input_ids, next_sequence_length=next_sequence_length, is_first_iteration=is_first_iteration, **kwargs
        )

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _prepare_generation_config(self, generation_config, **kwargs):
        generation_config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        reject_unsupported_config(generation_config)
        return generation_config, model_kwargs

    def _validate_generation_mode(self, generation_mode, generation_config, generation_mode_kwargs):
        reject_unsupported(assistant_model=generation_mode_kwargs.get("assistant_model"))
        if "streamer" in generation_mode_kwargs and generation_config.num_beams > 1:
            raise ValueError(
                f"num_beams must be 1 with a streamer, got {generation_config.num_beams}, because beams may take tokens back. "
                "Set num_beams=1, or remove the streamer."
            )
        for name in find_source_settings(generation_config):
            if not self.config.share_embeddings and self.config.source_vocab_size is not None:
                raise ValueError(
                    f"{name} is not supported with source_vocab_size={self.config.source_vocab_size}, because it compares "
                    "tokens with those of the source, which has another vocabulary. Remove it."
                )
        super()._validate_generation_mode(generation_mode, generation_config, generation_mode_kwargs)

    def _prepare_decoder_input_ids_for_generation(
        self, batch_size, model_input_name, model_kwargs, decoder_start_token_id, device=None
    ):
        given_ids = model_kwargs.pop("decoder_input_ids", None)
        start_ids, model_kwargs = super()._prepare_decoder_input_ids_for_generation(
            batch_size, model_input_name, model_kwargs, decoder_start_token_id, device
        )
        if given_ids is None:
            return start_ids, model_kwargs
        time, start = given_ids.shape[1], start_ids[:, :1]
        mask = build_token_mask(given_ids.shape, given_ids.device, model_kwargs.get("decoder_attention_mask"))
        first_token = torch.where(mask.any(dim=1), mask.int().argmax(dim=1), time)[:, None]  # [B, 1]
        columns = torch.arange(time + 1, device=given_ids.device)
        is_first = mask & (columns[:-1] == first_token)
        lacks_start = ~(is_first & (given_ids == start)).any(dim=1, keepdim=True)
        if lacks_start.any():
            is_start = lacks_start & (columns == first_token)  # [B, T + 1]
            given_ids = torch.where(is_start, start, torch.cat([start, given_ids], dim=1))
            model_kwargs["decoder_attention_mask"] = (pad(mask, (1, 0)) | is_start).long()
        return given_ids, model_kwargs

    def _get_logits_processor(
        self, generation_config, input_ids_seq_length=None, encoder_input_ids=None, *, model_kwargs=None, **kwargs
    ):
        reject_unsupported(**{name: kwargs.get(name) for name in ("negative_prompt_ids", "negative_prompt_attention_mask")})
        settings, attention_mask = find_source_settings(generation_config), (model_kwargs or {}).get("attention_mask")
        mask = None
        if settings:
            if encoder_input_ids is None or encoder_input_ids.dim() != 2:
                raise ValueError(f"{settings[0]} needs input_ids, because it compares tokens with those of the source.")
            if attention_mask is not None:
                repeats = len(attention_mask) // len(encoder_input_ids)  # rows were repeated for beams
                mask = build_token_mask(encoder_input_ids.shape, encoder_input_ids.device, attention_mask[::repeats])
                encoder_input_ids = encoder_input_ids.masked_fill(~mask, 0)
        processors = super()._get_logits_processor(
            generation_config, input_ids_seq_length, encoder_input_ids, model_kwargs=model_kwargs, **kwargs
        )
        if mask is None:
            return processors
        custom = kwargs.get("logits_processor") or ()
        return restrict_to_source_tokens(processors, generation_config, custom, encoder_input_ids, mask)

    def init_continuous_batching(self, *args, **kwargs):
        """Not supported.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "Continuous batching (generate_batch, cache_implementation='paged') is not supported, because it pages keys and "
            "values, which a recurrent decoder does not have. Use generate()."
        )
