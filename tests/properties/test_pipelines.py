"""Pipelines load a saved folder, and return for each text of a batch what they return for it alone."""

import numpy as np
import pytest
import torch
from transformers import pipeline

from hf_maskattn.data.tokenizers import train_tokenizer
from tests.heads import build_head
from tests.tolerances import MANY_STEPS

TEXTS = ["a", "the date is 3 May 1999 or so", "words", "", "some more words, longer than all of the others before"]
HEADS = {
    "text-classification": "MaskAttnForSequenceClassification",
    "token-classification": "MaskAttnForTokenClassification",
    "feature-extraction": "MaskAttnModel",
    "fill-mask": "MaskAttnForMaskedLM",
}


@pytest.fixture
def saved(tmp_path, tiny_config):
    """Save a model for a task and its tokenizer to a folder."""

    def build(task, **changes):
        tokenizer = train_tokenizer(TEXTS, kind="char", vocab_size=40, max_length=64)
        model = build_head(HEADS[task], tiny_config, **changes)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return tmp_path

    return build


def flatten(result):
    """List every number and string of a nested result in order."""
    if isinstance(result, dict):
        return [n for value in result.values() for n in flatten(value)]
    if isinstance(result, (list, tuple)):
        return [n for value in result for n in flatten(value)]
    return [result]


def assert_same(one, other):
    one, other = flatten(one), flatten(other)
    assert [type(n) for n in one] == [type(n) for n in other]
    for a, b in zip(one, other, strict=True):
        assert a == b if isinstance(a, str) else np.allclose(a, b, atol=MANY_STEPS, rtol=0)


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize(
    ("task", "arguments"),
    [("text-classification", {"top_k": None}), ("token-classification", {"aggregation_strategy": "simple"})],
)
def test_batch_matches_single_texts(saved, task, arguments, implementation):
    pipe = pipeline(task, model=str(saved(task, attention_implementation=implementation)))
    assert type(pipe.model).__name__ == HEADS[task]
    texts = [text for text in TEXTS if text or task == "text-classification"]
    single = [pipe(text, **arguments) for text in texts]
    assert_same(pipe(texts, batch_size=4, **arguments), single)


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_feature_extraction_batch_matches_single_texts(saved, implementation):
    pipe = pipeline("feature-extraction", model=str(saved("feature-extraction", attention_implementation=implementation)))
    texts = [text for text in TEXTS if text]
    for text, actual in zip(texts, pipe(texts, batch_size=4), strict=True):
        assert_same(actual[0][: len(text)], pipe(text)[0])
        assert not np.any(actual[0][len(text) :])  # transformers returns padding as well: zeros


def test_fill_mask_batch_matches_single_texts(saved):
    pipe = pipeline("fill-mask", model=str(saved("fill-mask")))
    texts = ["a [MASK]", "the date i[MASK] 3 May", "so[MASK]e more words, longer than all"]
    assert_same(pipe(texts, batch_size=3), [pipe(text) for text in texts])


def test_multi_label_scores_are_independent(saved):
    folder = saved("text-classification", problem_type="multi_label_classification")
    scores = pipeline("text-classification", model=str(folder))("words", top_k=None)
    assert len(scores) == 3
    assert abs(sum(score["score"] for score in scores) - 1) > 1e-3
