import pytest
import torch

from hf_maskattn import RNNSearchForConditionalGeneration
from hf_maskattn.model.decoding_state import STATE

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@pytest.fixture
def model(tiny_rnnsearch_config):
    return RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).eval()


def test_continuous_batching_is_refused(model):
    with pytest.raises(ValueError, match="Continuous batching"):
        model.generate_batch([[5, 6]], max_new_tokens=2)


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


def test_a_state_is_not_left_unread(model):
    begun = model.generate(IDS, min_new_tokens=3, max_new_tokens=3, return_dict_in_generate=True)
    prompt = {"decoder_input_ids": begun.sequences, STATE: begun[STATE], "max_new_tokens": 2}
    with pytest.raises(ValueError, match="use_cache=False reads the whole target at each step: leave one out"):
        model.generate(IDS, **prompt, use_cache=False)


def test_a_prompt_that_ends_with_a_pad_is_refused(model):
    prompts, mask = torch.tensor([[1, 7, 8], [1, 7, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    with pytest.raises(ValueError, match=r"decoder_attention_mask ends with 0 in row 1: .* pad on the left"):
        model.generate(IDS, decoder_input_ids=prompts, decoder_attention_mask=mask, max_new_tokens=2)


def test_a_start_token_is_needed(tiny_rnnsearch_config):
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config(decoder_start_token_id=None, bos_token_id=None)).eval()
    with pytest.raises(ValueError, match="`decoder_start_token_id` or `bos_token_id` has to be defined"):
        model.generate(IDS, max_new_tokens=2)


def test_ended_rows_go_on_with_the_end_token_where_there_is_no_pad_token(tiny_rnnsearch_config):
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config(pad_token_id=None)).eval()
    words = model.generate(
        IDS, max_new_tokens=3, prefix_allowed_tokens_fn=lambda row, words: [[2, 7][row]], return_dict_in_generate=True
    )
    assert words.sequences.tolist() == [[1, 2, 2, 2], [1, 7, 7, 7]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"inputs": IDS + 40}, "`input_ids` holds token id 45, the vocabulary has ids 0 to 39"),
        ({"inputs": IDS, "decoder_start_token_id": 99}, "`decoder_input_ids` holds token id 99"),
        ({"inputs": IDS, "decoder_input_ids": torch.tensor([[1, -3], [1, 4]])}, "`decoder_input_ids` holds token id -3"),
        ({"inputs": IDS, "attention_mask": torch.ones(2, 5)}, r"`attention_mask` has shape \[2, 5\]"),
        (
            {"inputs": IDS, "decoder_input_ids": torch.ones(2, 2).long(), "decoder_attention_mask": torch.ones(2, 4)},
            r"`attention_mask` has shape \[2, 4\], the inputs are \[2, 2\]",
        ),
        ({"inputs": IDS, "decoder_inputs_embeds": torch.zeros(2, 1, 6)}, "decoder_inputs_embeds`: both were given"),
    ],
)
def test_bad_inputs_are_named(model, arguments, words):
    with pytest.raises(ValueError, match=words):
        model.generate(**arguments, max_new_tokens=2)
