"""Models with clear choices, sources with every kind of padding, and a case for each setting of `generate()`."""

import torch
from transformers import LogitsProcessor, WatermarkingConfig

from hf_maskattn import RNNSearchForConditionalGeneration

FORMS = {
    "previous": {},
    "current": {"attention_query": "current", "rnn_type": "lstm", "decoder_layers": 2, "num_attention_heads": 2},
    "feeding": {"attention_query": "current", "input_feeding": True, "attention_implementation": "ragged"},
}
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1]])
IDS = torch.randint(3, 40, MASK.shape, generator=torch.Generator().manual_seed(3))
SOURCE = {"input_ids": torch.where(MASK == 1, IDS, 0), "attention_mask": MASK}
EOS = 2


def decided_model(config):
    """Build a model whose tokens depend on the source and on previous tokens, and whose rows end at times."""
    torch.manual_seed(5)
    model = RNNSearchForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.lm_head.bias[EOS] = 2.0
    return model


class ForbidRepetition(LogitsProcessor):
    """Forbids the previous token."""

    def __call__(self, input_ids, scores):
        return scores.scatter(1, input_ids[:, -1:], -torch.inf)


SEARCHES = [
    {},
    {"max_new_tokens": None, "max_length": 7, "min_length": 4},
    {"min_new_tokens": 5},
    {"num_beams": 4, "num_return_sequences": 3},
    {"num_beams": 3, "length_penalty": -3.0, "early_stopping": "never"},
    {"num_beams": 3, "length_penalty": 3.0, "early_stopping": True},
    {"repetition_penalty": 5.0},
    {"no_repeat_ngram_size": 2, "num_beams": 2},
    {"encoder_repetition_penalty": 3.0},
    {"encoder_repetition_penalty": 0.2, "num_beams": 2},
    {"encoder_no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 9.0, "num_beams": 3},
    {"bad_words_ids": [[23], [20, 20]], "num_beams": 2},
    {"sequence_bias": [[[11], 4.0]]},
    {"suppress_tokens": [5, 6], "begin_suppress_tokens": [EOS]},
    {"forced_bos_token_id": 20, "forced_eos_token_id": EOS},
    {"exponential_decay_length_penalty": (2, 1.5)},
    {"renormalize_logits": True, "remove_invalid_values": True, "num_beams": 2},
    {"eos_token_id": [EOS, 10, 11], "pad_token_id": 3, "bos_token_id": 1, "decoder_start_token_id": 4},
    {"watermarking_config": WatermarkingConfig(bias=4.0)},
    {"prefix_allowed_tokens_fn": lambda row, ids: [EOS, 10, 11, 12 + int(ids[-1]) % 3]},
    {"logits_processor": [ForbidRepetition()], "num_beams": 2},
    {"max_time": 1000.0, "disable_compile": True},
]
"""Deterministic settings."""

SAMPLES = [
    {"num_return_sequences": 3, "temperature": 1.5},
    {"top_k": 5, "top_p": 0.9, "min_p": 0.01},
    {"top_h": 0.4},
    {"typical_p": 0.6},
    {"epsilon_cutoff": 0.05, "top_k": 0},
    {"eta_cutoff": 0.2, "top_k": 0},
    {"num_beams": 3, "num_return_sequences": 2},
    {"encoder_repetition_penalty": 3.0, "num_return_sequences": 2},
]
"""Settings of sampling."""

CASES = [*SEARCHES, *({"do_sample": True, **sample} for sample in SAMPLES)]


def generate(model, use_cache=True, seed=1, **arguments):
    """Generate from a seed."""
    torch.manual_seed(seed)
    return model.generate(**{"max_new_tokens": 8, "use_cache": use_cache, **arguments})


def case_id(arguments):
    """Name a case, in the same way in every process."""
    if not isinstance(arguments, dict):
        return str(arguments)
    values = (f"{name} {value if isinstance(value, int | float | str | tuple) else '...'}" for name, value in arguments.items())
    return ", ".join(values) or "greedy"
