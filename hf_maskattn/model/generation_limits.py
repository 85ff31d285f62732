"""What `generate()` offers that a recurrent decoder cannot do, by the names of its settings."""

from transformers import GenerationConfig

_GROWING = "is for keys and values that grow with the text; the state of a recurrent decoder keeps its size. Leave it out."
_GUESSING = (
    "lets words be guessed ahead, of which some are taken back; a recurrent state that has read a word cannot forget it. Leave "
    "it out: greedy search, beam search and sampling work."
)
_NEGATIVE = (
    "reads a negative prompt by the decoder alone, which here answers to a source. Leave it out, or give generate() a "
    "logits_processor of your own that scores the negative source."
)

REFUSED = {
    "cache_implementation": _GROWING,
    "cache_config": _GROWING,
    "max_cache_len": _GROWING,
    "prefill_chunk_size": _GROWING,
    "compile_config": (
        "compiles steps over keys and values of a fixed size, which a recurrent decoder does not have. Leave it out, and "
        "compile the model: model.forward = torch.compile(model.forward)."
    ),
    "assistant_model": _GUESSING,
    "is_assistant": _GUESSING,
    "prompt_lookup_num_tokens": _GUESSING,
    "assistant_early_exit": _GUESSING,
    "speculation_type": _GUESSING,
    "use_mtp": _GUESSING,
    "penalty_alpha": (
        "compares states of several next words for contrastive search, of which a recurrent state keeps none. Leave it out, or "
        "sample (do_sample=True) with repetition_penalty or no_repeat_ngram_size."
    ),
    "dola_layers": (
        "contrasts words that several layers would choose, while here the output layer reads the last one together with the "
        "context. Leave it out."
    ),
    "guidance_scale": _NEGATIVE,
    "negative_prompt_ids": _NEGATIVE,
    "negative_prompt_attention_mask": _NEGATIVE,
    "token_healing": (
        "rewrites the end of a prompt by generating from the prompt alone, without its source. Leave it out, and pass "
        "decoder_input_ids that end where a token ends."
    ),
}
"""Settings that are refused, each with the reason and the way out."""

_WITHOUT_EFFECT = {"guidance_scale": 1}


def refuse(**settings: object) -> None:
    """Refuse those of some settings that a recurrent decoder cannot do; None and False ask for nothing.

    Raises:
        ValueError: If one is set; names it.
    """
    for name, value in settings.items():
        if value is not None and value is not False and value != _WITHOUT_EFFECT.get(name):
            shown = f"={value!r}" if isinstance(value, str | int | float) else ""
            raise ValueError(f"{name}{shown} {REFUSED[name]}")


def refuse_settings(config: GenerationConfig) -> None:
    """Refuse settings that a recurrent decoder cannot do, before anything is computed.

    Raises:
        ValueError: If one is set; names it.
    """
    refuse(**{name: getattr(config, name) for name in REFUSED if hasattr(config, name)})
