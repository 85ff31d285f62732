import pytest
import torch
from transformers import GenerationConfig

from hf_maskattn import RNNSearchForConditionalGeneration
from hf_maskattn.model.decoding_state import STATE

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@pytest.fixture
def model(tiny_rnnsearch_config):
    return RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).eval()


@pytest.mark.parametrize("name", ["static", "dynamic", "offloaded", "offloaded_static", "quantized"])
def test_caches_of_keys_and_values_are_refused(model, name):
    with pytest.raises(ValueError, match=f"cache_implementation='{name}' is for keys and values"):
        model.generate(IDS, cache_implementation=name, max_new_tokens=2)
    with pytest.raises(ValueError, match=f"cache_implementation='{name}'"):
        model.generate(IDS, GenerationConfig(cache_implementation=name, max_new_tokens=2))


def test_a_prefill_in_chunks_is_refused(model):
    with pytest.raises(ValueError, match="prefill_chunk_size=2 is for keys and values"):
        model.generate(IDS, prefill_chunk_size=2, max_new_tokens=2)


def test_continuous_batching_is_refused(model):
    with pytest.raises(ValueError, match="Continuous batching"):
        model.generate_batch([[5, 6]], max_new_tokens=2)
    with pytest.raises(ValueError, match="cache_implementation='paged'"):
        model.generate(IDS, cache_implementation="paged", max_new_tokens=2)


def test_assisted_decoding_is_refused(model, tiny_rnnsearch_config):
    assistant = RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).eval()
    for arguments in ({"assistant_model": assistant}, {"prompt_lookup_num_tokens": 2}):
        with pytest.raises(ValueError, match="assisted generation is not supported with stateful models, such as RNNSearch"):
            model.generate(IDS, max_new_tokens=4, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"penalty_alpha": 0.6, "top_k": 4},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
        {"dola_layers": "low"},
    ],
)
def test_strategies_that_transformers_has_moved_out_are_refused(model, arguments):
    with pytest.raises(ValueError, match="requires `trust_remote_code=True`"):
        model.generate(IDS, max_new_tokens=4, **arguments)


def test_an_unknown_argument_is_refused(model):
    with pytest.raises(ValueError, match="num_beems"):
        model.generate(IDS, num_beems=3)


def test_a_state_needs_a_token_that_it_has_not_read(model):
    begun = model.generate(IDS, min_new_tokens=3, max_new_tokens=3, return_dict_in_generate=True)
    with pytest.raises(ValueError, match="has read 3 tokens, decoder_input_ids has 3: pass the whole sequence"):
        model.generate(IDS, decoder_input_ids=begun.sequences[:, :3], **{STATE: begun[STATE]}, max_new_tokens=2)


def test_a_state_needs_as_many_rows(model):
    begun = model.generate(IDS, min_new_tokens=3, max_new_tokens=3, return_dict_in_generate=True)
    with pytest.raises(ValueError, match=r"has 2 rows, the target has 6: state.batch_repeat_interleave\(n\)"):
        model.generate(IDS, decoder_input_ids=begun.sequences, **{STATE: begun[STATE]}, max_new_tokens=2, num_beams=3)


def test_a_prompt_that_ends_with_a_pad_is_refused(model):
    prompts, mask = torch.tensor([[1, 7, 8], [1, 7, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    with pytest.raises(ValueError, match=r"decoder_attention_mask ends with 0 in row 1: .* pad on the left"):
        model.generate(IDS, decoder_input_ids=prompts, decoder_attention_mask=mask, max_new_tokens=2)


def test_a_start_token_is_needed(tiny_rnnsearch_config):
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config(decoder_start_token_id=None, bos_token_id=None)).eval()
    with pytest.raises(ValueError, match="`decoder_start_token_id` or `bos_token_id` has to be defined"):
        model.generate(IDS, max_new_tokens=2)
