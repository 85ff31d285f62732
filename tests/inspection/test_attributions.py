import sys

import pytest
import torch

from hf_maskattn.inspection.explain import explain
from tests.inspection.explained_models import TEXTS, build_model
from tests.tolerances import OUTPUT, assert_near

pytest.importorskip("captum")


def test_integrated_gradients_are_nearly_complete(classifier, tagger):
    for model in (classifier, tagger):
        for explanation in explain(*model, TEXTS[:2], "integrated_gradients"):
            assert explanation.completeness_gap < 0.02
            assert explanation.scores.shape == (len(explanation.tokens), len(explanation.labels))


def test_gradient_x_input_is_the_gradient_times_the_embedding(classifier):
    model, tokenizer = classifier
    (explanation,) = explain(model, tokenizer, TEXTS[:1], "gradient_x_input")
    inputs = tokenizer(TEXTS[:1], return_tensors="pt")
    embedded = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    logits = model.eval()(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits[0]
    for column, logit in enumerate(logits):
        (grad,) = torch.autograd.grad(logit, embedded, retain_graph=True)
        assert_near(explanation.scores[:, column], (grad * embedded).sum(dim=-1)[0], OUTPUT)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_batches_do_not_change_attributions(classifier):
    together = explain(*classifier, TEXTS, "integrated_gradients", label="x")
    alone = explain(*classifier, TEXTS, "integrated_gradients", label="x", batch_size=1)
    for one, other in zip(together, alone, strict=True):
        assert_near(one.scores, other.scores, 1e-5)
        assert_near(one.base, other.base, OUTPUT)


def test_missing_captum_names_its_extra(classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r'need captum: pip install "hf-maskattn\[explain\]'):
        explain(*classifier, TEXTS, "integrated_gradients")


def test_model_without_embedded_inputs_is_refused(monkeypatch):
    model, tokenizer = build_model()
    monkeypatch.setattr(model, "forward", lambda input_ids, attention_mask: None)
    with pytest.raises(ValueError, match='method="gradient_x_input" needs a model with `inputs_embeds`'):
        explain(model, tokenizer, TEXTS, "gradient_x_input")
