"""What `generate()` has to know of a model whose state keeps its size."""

from transformers.generation import GenerationMixin

from .decoding_state import STATE
from .tensor_checks import check_values


class StatefulGenerationMixin(GenerationMixin):
    """`generate()` over a `DecodingState`: it goes on from a state that is given, and refuses what no such state can do."""

    def prepare_inputs_for_generation(self, input_ids, next_sequence_length=None, is_first_iteration=False, **kwargs):
        """Prepare one step of `generate()`; where it begins with a state, what that has read is left out."""
        state = kwargs.get(STATE)
        if is_first_iteration and state is not None:
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

    def _prepare_cache_for_generation(self, generation_config, *args, **kwargs):
        for name in ("cache_implementation", "prefill_chunk_size"):
            value = getattr(generation_config, name)
            if value is not None:
                raise ValueError(
                    f"{name}={value!r} is for keys and values that grow with the text; the state of a recurrent decoder keeps "
                    "its size. Leave it out."
                )
        return super()._prepare_cache_for_generation(generation_config, *args, **kwargs)

    def init_continuous_batching(self, *args, **kwargs):
        """Refuse continuous batching.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "Continuous batching (generate_batch, cache_implementation='paged') pages keys and values, which a recurrent "
            "decoder does not have: use generate()."
        )
