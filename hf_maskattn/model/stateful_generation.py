"""What `generate()` has to know of a model whose state keeps its size.

All that it offers an encoder-decoder of transformers works, and gives what scoring the whole target anew at each step gives:
greedy search, beam search and sampling with every setting of length, of repetition and of the choice of words; constraints by
`prefix_allowed_tokens_fn`, own processors, criteria and streamers; all outputs; a source given as `encoder_outputs`, as
`inputs_embeds`, or as the state that an earlier call returned; a target begun by `decoder_input_ids`; a decoding loop of one's
own by `custom_generate`. What has no meaning for a recurrent decoder is refused before anything is computed, with the reason
and the way out: `generation_limits.py` lists it. Searches that transformers has moved to the Hub (groups of beams, constraints
by `force_words_ids`) it refuses itself, until it is told to trust that code.

Beyond that a padded token does not exist here either: settings that compare words with those of the source read the real ones
(`source_processors.py`), and whether a target still needs the start token is decided for each row, by its first real token.
"""

import torch
from torch.nn.functional import pad
from transformers.generation import GenerationMixin

from .decoding_state import STATE
from .generation_limits import refuse, refuse_settings
from .masking import real_token_mask
from .source_processors import read_real_tokens, source_settings
from .tensor_checks import check_values


class StatefulGenerationMixin(GenerationMixin):
    """`generate()` over a `DecodingState`: it goes on from a state that is given, and refuses what no such state can do."""

    def prepare_inputs_for_generation(self, input_ids, next_sequence_length=None, is_first_iteration=False, **kwargs):
        """Prepare one step of `generate()`; where it begins with a state, what that has read is left out."""
        state = kwargs.get(STATE)
        if state is not None and next_sequence_length is not None and not is_first_iteration:
            # Nothing is to be arranged for one more word; transformers looks at signatures at every step to find that out.
            words = input_ids[:, -next_sequence_length:].to(state.memory.mask.device)
            return {"decoder_input_ids": words, **{name: value for name, value in kwargs.items() if name != "labels"}}
        if state is not None and is_first_iteration:
            if kwargs.get("use_cache") is False:
                raise ValueError(
                    f"{STATE} is a state to go on from, and use_cache=False reads the whole target at each step: leave one out."
                )
            next_sequence_length = input_ids.shape[1] - state.get_seq_length()
            if next_sequence_length < 1:
                raise ValueError(
                    f"The state to go on from has read {state.get_seq_length()} tokens, decoder_input_ids has "
                    f"{input_ids.shape[1]}: pass the whole sequence, of which at least the last token was not read."
                )
        mask = kwargs.get("decoder_attention_mask")
        if is_first_iteration and mask is not None:
            real = mask[:, -1] != 0
            check_values(
                real,
                lambda: (
                    f"decoder_attention_mask ends with 0 in row {int((~real).nonzero()[0])}: what is to be continued must end "
                    "with a real token, so pad on the left."
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
        refuse_settings(generation_config)
        return generation_config, model_kwargs

    def _validate_generation_mode(self, generation_mode, generation_config, generation_mode_kwargs):
        refuse(assistant_model=generation_mode_kwargs.get("assistant_model"))
        if "streamer" in generation_mode_kwargs and generation_config.num_beams > 1:
            raise ValueError(
                f"streamer cannot be told words that a beam may take back (num_beams={generation_config.num_beams}): set "
                "num_beams=1, or leave the streamer out."
            )
        for name in source_settings(generation_config):
            if not self.config.share_embeddings and self.config.source_vocab_size is not None:
                raise ValueError(
                    f"{name} compares words with those of the source, and source_vocab_size={self.config.source_vocab_size} "
                    "says that the source has a vocabulary of its own. Leave it out."
                )
        super()._validate_generation_mode(generation_mode, generation_config, generation_mode_kwargs)

    def _prepare_decoder_input_ids_for_generation(
        self, batch_size, model_input_name, model_kwargs, decoder_start_token_id, device=None
    ):
        given = model_kwargs.pop("decoder_input_ids", None)
        words, model_kwargs = super()._prepare_decoder_input_ids_for_generation(
            batch_size, model_input_name, model_kwargs, decoder_start_token_id, device
        )
        if given is None:
            return words, model_kwargs
        start, attention_mask = words[:, :1], model_kwargs.get("decoder_attention_mask")
        mask = real_token_mask(given.shape, given.device, attention_mask)
        first = torch.where(mask.any(dim=1), mask.int().argmax(dim=1), given.shape[1])[:, None]  # [B, 1]
        begins = mask & (torch.arange(given.shape[1], device=given.device) == first)
        lacks_start = ~(begins & (given == start)).any(dim=1, keepdim=True)
        if lacks_start.any():
            place = lacks_start & (torch.arange(given.shape[1] + 1, device=given.device) == first)  # before the first
            given = torch.where(place, start, torch.cat([start, given], dim=1))
            model_kwargs["decoder_attention_mask"] = (pad(mask, (1, 0)) | place).long()
        return given, model_kwargs

    def _get_logits_processor(
        self, generation_config, input_ids_seq_length=None, encoder_input_ids=None, *, model_kwargs=None, **kwargs
    ):
        refuse(**{name: kwargs.get(name) for name in ("negative_prompt_ids", "negative_prompt_attention_mask")})
        settings, attention_mask = source_settings(generation_config), (model_kwargs or {}).get("attention_mask")
        mask = None
        if settings:
            if encoder_input_ids is None or encoder_input_ids.dim() != 2:
                raise ValueError(f"{settings[0]} compares words with those of the source: pass input_ids.")
            if attention_mask is not None:
                repeats = len(attention_mask) // len(encoder_input_ids)  # rows were repeated for beams
                mask = real_token_mask(encoder_input_ids.shape, encoder_input_ids.device, attention_mask[::repeats])
                encoder_input_ids = encoder_input_ids.masked_fill(~mask, 0)
        processors = super()._get_logits_processor(
            generation_config, input_ids_seq_length, encoder_input_ids, model_kwargs=model_kwargs, **kwargs
        )
        if mask is None:
            return processors
        return read_real_tokens(processors, generation_config, kwargs.get("logits_processor") or (), encoder_input_ids, mask)

    def init_continuous_batching(self, *args, **kwargs):
        """Refuse continuous batching.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "Continuous batching (generate_batch, cache_implementation='paged') pages keys and values, which a recurrent "
            "decoder does not have: use generate()."
        )
