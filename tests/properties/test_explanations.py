"""Contributions add up to logits, and removal is deletion, for any mask, number of heads, query, cell and dtype."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.inspection.contributions import split_logits
from hf_maskattn.inspection.explain import explain
from hf_maskattn.model.attention import IMPLEMENTATIONS, QUERIES
from tests.inspection.explained_models import WORDS, build_model
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import OUTPUT_BY_DTYPE, assert_near

EXACT = {**OUTPUT_BY_DTYPE, torch.float32: 1e-5, torch.float64: 1e-11}


@st.composite
def models(draw, head="MaskAttnForSequenceClassification", **changes):
    """Draw a model with its tokenizer."""
    torch.manual_seed(draw(st.integers(0, 99)))
    return build_model(
        head,
        **changes,
        rnn_type=draw(st.sampled_from(["lstm", "gru"])),
        attention_query=draw(st.sampled_from(QUERIES)),
        num_attention_heads=draw(st.sampled_from([1, 2, 4])),
        num_hidden_layers=draw(st.sampled_from([1, 2])),
        bidirectional=draw(st.booleans()),
        attention_implementation=draw(st.sampled_from([*IMPLEMENTATIONS])),
        num_labels=3,
    )


joint_models = st.booleans().flatmap(
    lambda use_crf: models("MaskAttnForJointClassification", sequence_label_names=["even", "odd"], use_crf=use_crf)
)


@torch.no_grad()
def classify(model, tokenizer, text):
    """Return the logits of the classes of a text."""
    outputs = model.eval()(**tokenizer([text], return_tensors="pt"))
    return outputs.get("sequence_logits", outputs.logits)[0]


@given(case=models(), kind=st.sampled_from(MASK_KINDS), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_contributions_sum_to_logits(case, kind, dtype):
    model = case[0].to(dtype).eval()
    ids, mask = torch.randint(3, model.config.vocab_size, (3, 7)), ragged_mask(3, 7, kind)
    with torch.no_grad():
        contributions, logits = split_logits(model, {"input_ids": ids, "attention_mask": mask.long()})
        expected = model(input_ids=ids, attention_mask=mask.long()).logits
    assert_near(logits, expected.to(logits.dtype), EXACT[dtype])
    assert (contributions[~mask] == 0).all()
    assert_near(contributions.sum(dim=1) + model.classifier.bias.to(logits.dtype), logits, EXACT[dtype])


CASES = {"classifier": models(), "tagger": models("MaskAttnForTokenClassification"), "joint": joint_models}


@pytest.mark.parametrize("kind", CASES)
@given(case=st.data(), words=st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=5))
def test_explained_contributions_are_complete(kind, case, words):
    model, tokenizer = case.draw(CASES[kind])
    (explanation,) = explain(model, tokenizer, [" ".join(words)], "contributions")
    assert explanation.tokens == words
    assert explanation.completeness_gap < EXACT[torch.float32]
    if kind != "tagger":
        assert_near(explanation.logits, classify(model, tokenizer, " ".join(words)), EXACT[torch.float32])


@given(
    case=models() | joint_models,
    words=st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=5),
    dtype=st.sampled_from([*EXACT]),
)
def test_removal_is_deletion(case, words, dtype):
    model, tokenizer = case
    model = model.to(dtype)
    shorter = [" ".join([*words[:index], *words[index + 1 :]]) for index in range(len(words))]
    (explanation,) = explain(model, tokenizer, [" ".join(words)], "removal")
    for text, scores in zip(shorter, explanation.scores, strict=True):
        if text:
            logits = classify(model, tokenizer, text)
            assert_near(explanation.logits - scores, logits.to(scores.dtype), EXACT[dtype])
        else:
            assert_near(explanation.logits - scores, explanation.base, EXACT[dtype])
