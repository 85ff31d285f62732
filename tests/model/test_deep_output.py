import pytest
import torch

from hf_maskattn.model import real_tokens
from hf_maskattn.model.deep_output import DeepOutput


def build(form):
    output = DeepOutput(state_size=1, embedding_size=1, context_size=1, output_size=2, form=form)
    with torch.no_grad():
        rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]] if form == "maxout" else [[1, 1, 0], [0, 0, 2]]
        output.projection.weight.copy_(torch.tensor(rows))
        output.projection.bias.copy_(torch.arange(len(rows)) / 4)
    return output


STATES, WORDS, CONTEXTS = (torch.tensor([[[value]]]) for value in (3.0, -1.0, 0.5))


@pytest.mark.parametrize(("form", "expected"), [("maxout", [3.0, 3.25]), ("linear", [2.0, 1.25])])
def test_by_hand(form, expected):
    # maxout: t' = 3, -1 + 1/4, 1/2 + 1/2, 2.5 + 3/4; the pairs are (3, 1) and (-0.75, 3.25)
    mask = torch.ones(1, 1, dtype=torch.bool)
    assert build(form)(STATES, WORDS, CONTEXTS, mask).tolist() == [[expected]]


def test_it_is_computed_for_real_tokens_alone_where_that_pays(monkeypatch):
    monkeypatch.setattr(real_tokens, "_LITTLE_WORK", 0)
    output, seen = build("maxout"), []
    output.projection.register_forward_hook(lambda module, inputs, result: seen.append(result.shape[:-1].numel()))
    mask = torch.tensor([[True, False, False]])
    expected = [[[3.0, 3.25], [0.0, 0.0], [0.0, 0.0]]]
    assert output(*(tensor.expand(1, 3, 1) for tensor in (STATES, WORDS, CONTEXTS)), mask).tolist() == expected
    assert seen == [1]


def test_states_and_contexts_are_dropped_in_training_and_words_never():
    output = DeepOutput(state_size=50, embedding_size=50, context_size=50, output_size=150, form="linear", dropout=0.5)
    with torch.no_grad():
        output.projection.weight.copy_(torch.eye(150))
        output.projection.bias.zero_()
    ones = torch.ones(1, 1, 50)
    states, words, contexts = output.train()(ones, ones, ones, None).chunk(3, dim=-1)
    assert {*states.unique().tolist()} == {*contexts.unique().tolist()} == {0.0, 2.0}
    assert torch.equal(words, ones)
    assert torch.equal(output.eval()(ones, ones, ones, None), torch.ones(1, 1, 150))


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match=r"output_layer='relu' is unknown; choose from \['maxout', 'linear'\]"):
        build("relu")
