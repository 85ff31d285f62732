"""What explanations cost next to predictions, in CPU time of one thread."""

import time

import pytest
import torch

from hf_maskattn.inference.predict import predict
from hf_maskattn.inspection.explain import Explainer
from hf_maskattn.inspection.explained_texts import encode_texts
from tests.inspection.explained_models import WORDS, build_model, tag_names

LONG_TEXT = " ".join((WORDS.split() * 3)[:32])

pytestmark = pytest.mark.slow


def measure_ratio(function, reference, repetitions):
    """Return the ratio of the least CPU times of interleaved calls."""
    times = {function: [], reference: []}
    for _ in range(repetitions):
        for call, seconds in times.items():
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
    return min(times[function]) / min(times[reference])


SIZES = {"embedding_size": 128, "hidden_size": 256, "attention_size": 128, "rnn_type": "gru"}
"""Sizes of the shipped recipes."""


@pytest.fixture(scope="module")
def model():
    """A model of the size of the shipped recipes, and its tokenizer."""
    return build_model(**SIZES, num_labels=30)


@pytest.fixture(scope="module")
def tagger():
    """A tagger of this size, and its tokenizer."""
    return build_model("MaskAttnForTokenClassification", **SIZES, **tag_names("O", "B-A", "I-A", "B-B", "I-B"))


@pytest.mark.parametrize(("name", "limit"), [("model", 1.3), ("tagger", 1.4)])
def test_contributions_cost_little_more_than_predictions(name, limit, request, tmp_path):
    model = request.getfixturevalue(name)
    for part in model:
        part.save_pretrained(tmp_path)
    words = WORDS.split()
    texts = [" ".join(words[start : start + 1 + start % 13]) for start in range(5)] * 200
    explainer = Explainer(*model, "contributions")
    assert measure_ratio(lambda: [*explainer.explain_each(texts)], lambda: [*predict(tmp_path, texts)], 7) < limit


def test_removal_costs_a_few_predictions(model):
    explainer = Explainer(*model, "removal")
    rows = encode_texts(*model, [LONG_TEXT], unit="token")
    inputs = model[1]([LONG_TEXT], return_tensors="pt")

    @torch.no_grad()
    def predict_one():
        model[0](**inputs)

    assert measure_ratio(lambda: explainer.compute(rows), predict_one, 30) < 8
