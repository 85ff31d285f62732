import pytest
import torch

from hf_maskattn.benchmark.rnnsearch import Shape, our_rnnsearch, step_by_step
from hf_maskattn.benchmark.rnnsearch_rival import END, PAD, START, StepByStepRNNSearch
from tests.tolerances import MANY_STEPS

SHAPE = Shape(3, 4, 5, 8)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


def test_special_ids_are_those_of_our_model():
    config = our_rnnsearch(SHAPE).config
    assert (config.pad_token_id, config.decoder_start_token_id, config.eos_token_id) == (PAD, START, END)


@pytest.mark.parametrize("keys_once", [True, False])
def test_logits_are_ours_under_pads(keys_once):
    ours = our_rnnsearch(SHAPE).eval()
    source, target = torch.randint(3, 1000, (3, 4)), torch.randint(3, 1000, (3, 5))
    expected = ours(source, MASK, target).logits
    torch.testing.assert_close(step_by_step(ours, keys_once)(source, MASK, target), expected, atol=MANY_STEPS, rtol=0)


def test_greedy_search_ends_where_ours_does():
    ours = our_rnnsearch(SHAPE).eval()
    ours.lm_head.bias.data[END] = 0.45  # about one of many words
    source, mask = torch.randint(3, 1000, (12, 4), generator=torch.Generator().manual_seed(0)), MASK.repeat(4, 1)
    found = step_by_step(ours, keys_once=True).greedy(source, mask, 9)
    expected = ours.generate(source, attention_mask=mask, max_new_tokens=9)[:, 1:]
    assert (found == END)[:, 1:-1].any()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("keys_once", [True, False])
def test_a_beam_that_holds_everything_finds_the_likeliest_target(keys_once):
    torch.manual_seed(0)
    model = StepByStepRNNSearch(vocab_size=5, embedding_size=4, units=6, keys_once=keys_once)
    model.vocabulary.bias.data[END] = 0.5
    source, everything = torch.tensor([[3, 4, 3, 4]]), torch.cartesian_prod(*[torch.arange(5)] * 3)  # [125, 3]
    begun = torch.nn.functional.pad(everything, (1, -1), value=START)
    with torch.no_grad():
        scores = model(source.expand(125, -1), MASK[:1].expand(125, -1), begun).log_softmax(dim=-1)
    scores = scores.gather(2, everything[..., None])[..., 0]  # [125, 3]
    ended = torch.nn.functional.pad((everything == END).cumsum(dim=1), (1, -1)) > 0
    is_target = ((everything == PAD) | ~ended).all(dim=1)
    totals = scores.masked_fill(ended, 0).sum(dim=1).masked_fill(~is_target, -torch.inf)
    assert torch.equal(model.beam_search(source, MASK[:1], 3, beams=60), everything[totals.argmax()][None])
