import copy

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.logits_process import EncoderNoRepeatNGramLogitsProcessor, EncoderRepetitionPenaltyLogitsProcessor

from hf_maskattn import RNNSearchForConditionalGeneration
from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.generation import (
    CACHE_NAME,
    UNSUPPORTED,
    DecodingState,
    Memory,
    count_rows_per_source,
    find_source_settings,
    reject_unsupported,
    reject_unsupported_config,
    restrict_to_source_tokens,
)
from hf_maskattn.model.masking import TokenColumns

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@pytest.fixture
def model(tiny_rnnsearch_config):
    return RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).eval()


def test_continuous_batching_raises(model):
    with pytest.raises(ValueError, match="Continuous batching"):
        model.generate_batch([[5, 6]], max_new_tokens=2)


def test_unknown_argument_raises(model):
    with pytest.raises(ValueError, match="num_beems"):
        model.generate(IDS, num_beems=3)


@pytest.mark.parametrize(
    ("length", "changes", "message"),
    [
        (3, {}, "decoder_input_ids must be longer than the 3 tokens that the state has read, got 3 tokens"),
        (4, {"num_beams": 3}, r"must have as many rows as the target, 6, got 2. state.batch_repeat_interleave\(n\)"),
        (4, {"use_cache": False}, f"use_cache must be True with {CACHE_NAME}, got False"),
    ],
)
def test_state_requires_new_token_its_rows_and_use_cache(model, length, changes, message):
    output = model.generate(IDS, min_new_tokens=3, max_new_tokens=3, return_dict_in_generate=True)
    prompt = {"decoder_input_ids": output.sequences[:, :length], CACHE_NAME: output[CACHE_NAME], "max_new_tokens": 2}
    with pytest.raises(ValueError, match=message):
        model.generate(IDS, **prompt, **changes)


def test_prompt_that_ends_with_padding_raises(model):
    prompts, mask = torch.tensor([[1, 7, 8], [1, 7, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    message = r"decoder_attention_mask must end with 1, got 0 at the end of row 1\. Pad the target on the left"
    with pytest.raises(ValueError, match=message):
        model.generate(IDS, decoder_input_ids=prompts, decoder_attention_mask=mask, max_new_tokens=2)


def test_generate_requires_start_token(tiny_rnnsearch_config):
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config(decoder_start_token_id=None, bos_token_id=None)).eval()
    with pytest.raises(ValueError, match="`decoder_start_token_id` or `bos_token_id` has to be defined"):
        model.generate(IDS, max_new_tokens=2)


def test_ended_rows_repeat_eos_without_pad_token(tiny_rnnsearch_config):
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config(pad_token_id=None)).eval()
    generated = model.generate(
        IDS, max_new_tokens=3, prefix_allowed_tokens_fn=lambda row, ids: [[2, 7][row]], return_dict_in_generate=True
    )
    assert generated.sequences.tolist() == [[1, 2, 2, 2], [1, 7, 7, 7]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": IDS + 40}, r"`input_ids` must be in \[0, 39\], the ids of the vocabulary, got 45."),
        (
            {"inputs": IDS, "decoder_start_token_id": 99},
            r"`decoder_input_ids` must be in \[0, 39\], the ids of the vocabulary, got 99.",
        ),
        (
            {"inputs": IDS, "decoder_input_ids": torch.tensor([[1, -3], [1, 4]])},
            r"`decoder_input_ids` must be in \[0, 39\], the ids of the vocabulary, got -3.",
        ),
        (
            {"inputs": IDS, "attention_mask": torch.ones(2, 5)},
            r"`attention_mask` must have shape \[2, 3\] as the inputs, got \[2, 5\].",
        ),
        (
            {"inputs": IDS, "decoder_input_ids": torch.ones(2, 2).long(), "decoder_attention_mask": torch.ones(2, 4)},
            r"`attention_mask` must have shape \[2, 2\] as the inputs, got \[2, 4\].",
        ),
        ({"inputs": IDS, "decoder_inputs_embeds": torch.zeros(2, 1, 6)}, "`decoder_inputs_embeds` must be given, got both."),
    ],
)
def test_generate_rejects_bad_inputs(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**arguments, max_new_tokens=2)


MASK = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()


def build(implementation="eager", input_feeding=True):
    torch.manual_seed(0)
    attention = AdditiveAttention(query_size=2, memory_size=4, attention_size=2, implementation=implementation)
    torch.nn.init.normal_(attention.energy)
    keys, values = attention.prepare(torch.randn(4, 3, 4), MASK)
    layers = ((torch.randn(4, 2), torch.randn(4, 2)), (torch.randn(4, 2), torch.randn(4, 2)))
    memory = Memory(keys.detach(), values, MASK, TokenColumns(0, 3, 3))
    return DecodingState(layers, torch.randn(4, 4) if input_feeding else None, memory, seen_tokens=5), attention


def tensors(state):
    return [tensor for layer in state.layers for tensor in layer] + ([] if state.context is None else [state.context])


@pytest.mark.parametrize("input_feeding", [True, False])
def test_reorder_cache_keeps_memory(input_feeding):
    state, _ = build(input_feeding=input_feeding)
    original = copy.deepcopy(state)
    state.reorder_cache(torch.tensor([1, 0, 2, 2]))
    expected = [tensor[[1, 0, 2, 2]] for tensor in tensors(original)]
    torch.testing.assert_close(tensors(state), expected, atol=0, rtol=0)
    assert torch.equal(state.memory.keys, original.memory.keys)
    assert state.get_seq_length() == 5


@pytest.mark.parametrize("implementation", ["eager", "ragged"])
def test_batch_select_indices_selects_sources(implementation):
    state, attention = build(implementation)
    original = copy.deepcopy(state)
    rows = torch.tensor([2, 0, 3, 1, 1])
    state.batch_select_indices(rows)
    assert state.batch_size == 5
    for actual, expected in zip(tensors(state), tensors(original), strict=True):
        assert torch.equal(actual, expected[rows])
    query = torch.randn(4, 1, 2)
    context, weights = attention(query, original.memory[:2], original.memory.mask)
    context_of_rows, weights_of_rows = attention(query[rows], state.memory[:2], state.memory.mask)
    assert torch.equal(context_of_rows, context[rows])
    assert torch.equal(weights_of_rows, weights[rows])


def test_repeated_rows_share_their_source():
    state, _ = build()
    original = copy.deepcopy(state)
    state.batch_repeat_interleave(2)
    assert (state.batch_size, state.rows_per_source) == (8, 2)
    for actual, expected in zip(tensors(state), tensors(original), strict=True):
        assert torch.equal(actual, expected.repeat_interleave(2, dim=0))
    assert torch.equal(state.memory.mask, MASK)


@pytest.mark.parametrize("implementation", ["eager", "ragged"])
def test_batch_select_indices_of_repeated_rows(implementation):
    state, _ = build(implementation)
    original = copy.deepcopy(state)
    state.batch_repeat_interleave(3)
    rows = torch.tensor([7, 0, 3, 1])  # rows of the sources 2, 0, 1, 0
    state.batch_select_indices(rows)
    original.batch_select_indices(torch.tensor([2, 0, 1, 0]))
    assert state.rows_per_source == 1
    actual, expected = ([*tensors(selected), *selected.memory[:3]] for selected in (state, original))
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)


@pytest.mark.parametrize("repeats", [0, 2])
def test_state_without_rows_has_no_source(repeats):
    state, _ = build()
    if repeats:
        state.batch_select_indices(torch.tensor([], dtype=torch.long))
    state.batch_repeat_interleave(repeats)
    assert (state.batch_size, len(state.memory.mask), state.rows_per_source) == (0, 0, 1)


SOURCES = torch.randn(3, 5, 2), torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([0, 0, 1, 1, 2, 2], 2),
        ([0, 0, 0, 1, 1, 1], 3),
        ([0, 0], 2),
        ([0, 1, 2], 1),
        ([0, 0, 1, 2], 1),
        ([0, 0, 1], 1),
        ([0, 0, 1, 1, 1, 1], 2),
        ([0, 1, 1], 1),
        ([0], 1),
        ([], 1),
    ],
)
def test_count_rows_per_source(rows, expected):
    memory, mask = (tensor[torch.tensor(rows, dtype=torch.long)] for tensor in SOURCES)
    with torch.no_grad():
        assert count_rows_per_source(memory, mask) == expected
    assert count_rows_per_source(memory, mask) == 1  # each row has its own gradient


@torch.no_grad()
def test_count_rows_per_source_compares_masks():
    assert count_rows_per_source(torch.zeros(2, 2, 4), torch.tensor([[True, True], [True, False]])) == 1


def test_state_has_attributes_of_transformers_caches():
    state, _ = build()
    assert not state.is_compileable
    assert not state.is_croppable
    assert not all(state.is_linear)


@pytest.mark.parametrize("name", ["static", "dynamic", "offloaded", "offloaded_static", "quantized", "paged"])
def test_key_value_caches_raise(name):
    message = f"^cache_implementation='{name}' is not supported, because it configures a cache of keys and values"
    with pytest.raises(ValueError, match=message):
        reject_unsupported_config(GenerationConfig(cache_implementation=name))


def test_unset_settings_do_not_raise():
    reject_unsupported(**dict.fromkeys(UNSUPPORTED))
    reject_unsupported(**{**dict.fromkeys(UNSUPPORTED, False), "guidance_scale": 1.0})
    reject_unsupported_config(GenerationConfig(guidance_scale=1, num_beams=3, do_sample=True))


def test_error_does_not_show_objects():
    with pytest.raises(ValueError, match=r"^assistant_model is not supported, because it proposes tokens"):
        reject_unsupported(assistant_model=object())


SOURCE_IDS = torch.tensor([[5, 9, 6, 7], [9, 9, 6, 5], [9, 9, 9, 9]])
SOURCE_MASK = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, []),
        ({"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}, []),
        ({"encoder_repetition_penalty": 2.0}, ["encoder_repetition_penalty"]),
        ({"encoder_no_repeat_ngram_size": 1}, ["encoder_no_repeat_ngram_size"]),
    ],
)
def test_find_source_settings(settings, names):
    assert find_source_settings(GenerationConfig(**settings)) == names


def test_source_processors_ignore_padding():
    config = GenerationConfig(encoder_repetition_penalty=2.0, encoder_no_repeat_ngram_size=2)
    processors = LogitsProcessorList(
        [EncoderRepetitionPenaltyLogitsProcessor(2.0, SOURCE_IDS), EncoderNoRepeatNGramLogitsProcessor(2, SOURCE_IDS)]
    )
    penalty, ngrams = restrict_to_source_tokens(processors, config, (), SOURCE_IDS, SOURCE_MASK)
    ids, scores = torch.tensor([[1, 6]] * 6), torch.ones(6, 10)  # two beams of each source
    promoted = penalty(ids, scores)
    assert [set(row.nonzero()[:, 0].tolist()) for row in promoted == 2] == [{5, 6, 7}] * 2 + [{5, 6}] * 2 + [set()] * 2
    forbidden = ngrams(ids, scores).isinf()
    assert [row.nonzero()[:, 0].tolist() for row in forbidden] == [[7], [7], [5], [5], [], []]


def test_custom_source_processors_are_kept():
    own = EncoderNoRepeatNGramLogitsProcessor(2, SOURCE_IDS)
    config = GenerationConfig(encoder_no_repeat_ngram_size=3)
    assert restrict_to_source_tokens(LogitsProcessorList([own]), config, [own], SOURCE_IDS, SOURCE_MASK)[0] is own
