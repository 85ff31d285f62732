"""`generate()` has the same result as scoring whole targets, for any source in any batch."""

import copy
from unittest.mock import patch

import pytest
import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import BaseModelOutput

from hf_maskattn.model.generation import CACHE_NAME, DecodingState
from tests.properties.generation_cases import EOS, FORMS, IDS, MASK, SOURCE, decided_model
from tests.tolerances import LOG_PROBABILITY, MANY_STEPS, OUTPUT

PROMPTS = torch.tensor([[1, 7, 8], [0, 1, 7], [0, 0, 1], [1, 20, 21]])
"""Prompts, padded on the left."""


@pytest.fixture(params=FORMS)
def model(request, tiny_rnnsearch_config):
    return decided_model(tiny_rnnsearch_config(**FORMS[request.param]))


def search_greedily(model, count, **source):
    """Select the most likely token in each step, with a forward pass over the target; padding after the end."""
    sequences = torch.full((len(MASK), 1), model.config.decoder_start_token_id)
    ended = torch.zeros(len(MASK), dtype=torch.bool)
    for _ in range(count):
        token = model(**source, decoder_input_ids=sequences, use_cache=False).logits[:, -1].argmax(dim=-1)
        token = token.masked_fill(ended, 0)
        ended |= token == EOS
        sequences = torch.cat([sequences, token[:, None]], dim=1)
        if ended.all():
            break
    return sequences


def test_greedy_search_selects_likeliest_tokens(model):
    sequences = model.generate(**SOURCE, max_new_tokens=12)
    assert torch.equal(sequences, search_greedily(model, 12, **SOURCE))
    assert len(set(map(tuple, sequences.tolist()))) > 1
    assert torch.equal(model.generate(**SOURCE, max_new_tokens=12, num_beams=1), sequences)


def test_length_and_repetition_settings(model):
    longer = model.generate(**SOURCE, min_new_tokens=6, max_new_tokens=9)
    assert not (longer[:, 1:6] == EOS).any()
    assert longer.shape[1] <= 10
    sequences = model.generate(**SOURCE, max_new_tokens=9, no_repeat_ngram_size=1, suppress_tokens=[EOS])
    assert all(len(set(row)) == len(row) for row in sequences.tolist())


def test_beam_scores_match_model_and_are_sorted(model):
    beams = model.generate(
        **SOURCE, num_beams=4, num_return_sequences=4, max_new_tokens=6, output_scores=True, return_dict_in_generate=True
    )
    sequences = beams.sequences
    source = {name: tensor.repeat_interleave(4, dim=0) for name, tensor in SOURCE.items()}
    scores = model(**source, decoder_input_ids=sequences[:, :-1], use_cache=False).logits.log_softmax(dim=-1)
    chosen = scores.gather(2, sequences[:, 1:, None])[..., 0]
    is_token = (sequences[:, 1:] == EOS).cumsum(dim=1) - (sequences[:, 1:] == EOS).long() == 0
    lengths = is_token.sum(dim=1)
    torch.testing.assert_close(beams.sequences_scores, (chosen * is_token).sum(dim=1) / lengths, atol=LOG_PROBABILITY, rtol=0)
    ranked = beams.sequences_scores.view(len(MASK), 4)
    assert torch.equal(ranked, ranked.sort(dim=1, descending=True).values)
    transitions = model.compute_transition_scores(sequences, beams.scores, beams.beam_indices)
    torch.testing.assert_close(transitions.sum(dim=1) / lengths, beams.sequences_scores, atol=LOG_PROBABILITY, rtol=0)


def test_beam_search_needs_reordered_state(model):
    arguments = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 8}
    expected = model.generate(**SOURCE, **arguments)
    with patch.object(DecodingState, "reorder_cache", lambda state, beam_idx: None):
        assert not torch.equal(model.generate(**SOURCE, **arguments), expected)


@pytest.mark.parametrize("arguments", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_batch_matches_single_rows(model, arguments):
    count = arguments.get("num_return_sequences", 1)
    batched = model.generate(**SOURCE, max_new_tokens=8, **arguments)
    for row, is_token in enumerate(MASK.bool()):
        single = model.generate(SOURCE["input_ids"][row : row + 1, is_token], max_new_tokens=8, **arguments)
        actual = batched[row * count : (row + 1) * count]
        assert torch.equal(actual[:, : single.shape[1]], single)
        assert set(actual[:, single.shape[1] :].flatten().tolist()) <= {0, EOS}  # padding after the end


@pytest.mark.parametrize("prompt", [{}, {"decoder_input_ids": PROMPTS, "decoder_attention_mask": PROMPTS.ne(0).long()}])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "arguments", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 3}], ids=["beams", "samples"]
)
def test_memory_is_shared_by_beams_and_samples(model, arguments, use_cache, prompt, monkeypatch):
    outputs = {f"output_{name}": True for name in ("scores", "logits", "attentions")}
    results = []
    for sources in (len(MASK), 3 * len(MASK)):
        torch.manual_seed(0)
        results.append(
            model.generate(
                **SOURCE, **prompt, **arguments, **outputs, max_new_tokens=4, use_cache=use_cache, return_dict_in_generate=True
            )
        )
        if use_cache:
            assert len(results[-1][CACHE_NAME].memory.mask) == sources
        monkeypatch.setattr("hf_maskattn.model.decoder.count_rows_per_source", lambda memory, mask: 1)
    shared, own = results
    assert torch.equal(shared.sequences, own.sequences)
    for name in ("scores", "logits"):
        torch.testing.assert_close(shared[name], own[name], atol=LOG_PROBABILITY, rtol=0)
    for (one,), (other,) in zip(shared.cross_attentions, own.cross_attentions, strict=True):
        torch.testing.assert_close(one, other, atol=MANY_STEPS, rtol=0)


def test_custom_generate_may_drop_rows(model):
    def keep_a_sample_of_each(
        model, input_ids, logits_processor, stopping_criteria, generation_config, encoder_outputs, **others
    ):
        rows = torch.tensor([0, 4, 8, 11])  # three samples of each source
        encoded, sequences = BaseModelOutput(encoder_outputs.last_hidden_state[rows]), input_ids[rows]
        mask = others["attention_mask"][rows]
        for _ in range(4):
            step = model(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=sequences, use_cache=False)
            sequences = torch.cat([sequences, step.logits[:, -1:].argmax(dim=-1)], dim=1)
        return sequences

    free = {"max_new_tokens": 4, "min_new_tokens": 4, "eos_token_id": None}
    expected = model.generate(**SOURCE, **free)
    actual = model.generate(**SOURCE, **free, do_sample=True, num_return_sequences=3, custom_generate=keep_a_sample_of_each)
    assert torch.equal(actual, expected)


def test_all_outputs_are_returned(model):
    actual = model.generate(
        **SOURCE,
        max_new_tokens=5,
        min_new_tokens=5,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_attentions=True,
        output_hidden_states=True,
    )
    heads, layers = model.config.num_attention_heads, model.config.decoder_layers
    assert len(actual.scores) == len(actual.logits) == len(actual.cross_attentions) == len(actual.decoder_hidden_states) == 5
    for (weights,), states in zip(actual.cross_attentions, actual.decoder_hidden_states, strict=True):
        assert weights.shape == (4, heads, 1, 6)
        assert not weights.masked_select(MASK[:, None, None] == 0).any()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4, heads, 1), atol=OUTPUT, rtol=0)
        assert len(states) == layers + 1
    assert len(actual.encoder_hidden_states) == 2
    complete = model(**SOURCE, decoder_input_ids=actual.sequences[:, :-1], output_attentions=True, use_cache=False)
    weights = torch.cat([step[0] for step in actual.cross_attentions], dim=2)
    torch.testing.assert_close(weights, complete.cross_attentions[0], atol=MANY_STEPS, rtol=0)
    torch.testing.assert_close(torch.stack(actual.logits, dim=1), complete.logits, atol=LOG_PROBABILITY, rtol=0)
    assert actual[CACHE_NAME].get_seq_length() == actual.sequences.shape[1] - 1


def test_beam_search_returns_attentions(model):
    actual = model.generate(**SOURCE, num_beams=2, max_new_tokens=3, return_dict_in_generate=True, output_attentions=True)
    assert all(step[0].shape == (8, model.config.num_attention_heads, 1, 6) for step in actual.cross_attentions)


def test_generate_from_encoder_outputs_and_embeddings(model):
    expected = model.generate(**SOURCE, max_new_tokens=6, num_beams=2)
    encoded = model.get_encoder()(**SOURCE)
    assert isinstance(encoded, BaseModelOutput)
    assert torch.equal(model.generate(encoder_outputs=encoded, attention_mask=MASK, max_new_tokens=6, num_beams=2), expected)
    embedded = model.get_input_embeddings()(SOURCE["input_ids"])
    assert torch.equal(model.generate(inputs_embeds=embedded, attention_mask=MASK, max_new_tokens=6, num_beams=2), expected)


class StopAtToken(StoppingCriteria):
    """Stops rows that hold a token."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores, **kwargs):
        return (input_ids[:, 1:] == self.token).any(dim=1)


def test_stopping_criteria_and_several_eos_tokens(model):
    free = model.generate(**SOURCE, max_new_tokens=8, suppress_tokens=[EOS])
    token = free[0, 3].item()
    stopped = model.generate(
        **SOURCE, max_new_tokens=8, suppress_tokens=[EOS], stopping_criteria=StoppingCriteriaList([StopAtToken(token)])
    )
    assert (
        stopped[0, : free[0].tolist().index(token, 1) + 1].tolist() == free[0, : free[0].tolist().index(token, 1) + 1].tolist()
    )
    ended = model.generate(**SOURCE, max_new_tokens=8, eos_token_id=[EOS, token], suppress_tokens=[EOS])
    end = free[0].tolist().index(token, 1)
    assert not ended[0, end + 1 :].any()


class RecordingStreamer(BaseStreamer):
    """Records the tokens that it receives."""

    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens.extend(value.flatten().tolist())

    def end(self):
        self.ended = True


@pytest.mark.parametrize("arguments", [{}, {"do_sample": True}])
def test_streamer_receives_every_token(model, arguments):
    streamer = RecordingStreamer()
    sequences = model.generate(IDS[:1], max_new_tokens=6, streamer=streamer, **arguments)
    assert streamer.ended
    assert streamer.tokens == sequences[0].tolist()


@pytest.mark.parametrize("arguments", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("masked", [False, True])
def test_generate_continues_from_returned_state(model, masked, arguments):
    free = {"min_new_tokens": 9, "max_new_tokens": 9}
    output = model.generate(**SOURCE, min_new_tokens=4, max_new_tokens=4, return_dict_in_generate=True)
    prompt = {"decoder_input_ids": output.sequences}
    if masked:
        prompt["decoder_attention_mask"] = torch.ones_like(output.sequences)
    expected = model.generate(**SOURCE, **prompt, **free, **arguments)
    state = copy.deepcopy(output[CACHE_NAME])
    if arguments:
        state.batch_repeat_interleave(2)
    for _ in range(2):  # the state is not changed
        actual = model.generate(**SOURCE, **prompt, **{CACHE_NAME: state}, **free, **arguments)
        assert torch.equal(actual, expected)
    assert torch.equal(actual[:, :5], output.sequences)


def test_left_padded_prompts(model):
    prompts = [[1, 7, 8, 9], [1, 7], [1], [1, 20, 21]]
    padded = torch.tensor([[0] * (4 - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (4 - len(p)) + [1] * len(p) for p in prompts])
    batched = model.generate(
        **SOURCE, decoder_input_ids=padded, decoder_attention_mask=mask, min_new_tokens=5, max_new_tokens=5
    )
    for row, prompt in enumerate(prompts):
        one = {name: tensor[row : row + 1] for name, tensor in SOURCE.items()}
        single = model.generate(**one, decoder_input_ids=torch.tensor([prompt]), min_new_tokens=5, max_new_tokens=5)
        assert batched[row, 4:].tolist() == single[0, len(prompt) :].tolist()


def test_generate_keeps_no_state(model):
    expected = model.generate(**SOURCE, max_new_tokens=6)
    model.generate(IDS[:, :3], max_new_tokens=3, num_beams=3)
    assert torch.equal(model.generate(**SOURCE, max_new_tokens=6), expected)
    for module in model.modules():
        assert not [value for value in vars(module).values() if torch.is_tensor(value) or isinstance(value, DecodingState)]


def test_source_without_tokens(model):
    empty = torch.zeros(1, 4, dtype=torch.long)
    sequences = model.generate(empty, attention_mask=empty, max_new_tokens=5)
    assert torch.equal(model.generate(empty[:, :0], max_new_tokens=5), sequences)
    assert torch.equal(model.generate(IDS[:1, :4], attention_mask=empty, max_new_tokens=5), sequences)
