import pytest
import torch

from hf_maskattn.inspection.explain import explain
from hf_maskattn.inspection.faithfulness import SHARES, compare_methods
from tests.inspection.explained_models import TEXTS, build_model
from tests.tolerances import OUTPUT


@pytest.fixture(autouse=True)
def _few_integration_steps(monkeypatch):
    monkeypatch.setattr("hf_maskattn.inspection.attributions.INTEGRATION_STEPS", 2)


@torch.no_grad()
def probability(model, tokenizer, words, label):
    inputs = tokenizer([" ".join(words)], return_tensors="pt") if words else {"input_ids": torch.zeros(1, 1).long()}
    if not words:
        inputs["attention_mask"] = torch.zeros(1, 1).long()
    return float(model(**inputs).logits[0].softmax(dim=-1)[label])


def test_measures_are_those_of_shorter_texts(classifier):
    model, tokenizer = classifier
    words = TEXTS[0].split()
    comparison = compare_methods(model, tokenizer, TEXTS[:1])
    (explanation,) = explain(model, tokenizer, TEXTS[:1], "removal")
    (label,) = explanation.predicted
    order = sorted(range(len(words)), key=lambda index: -float(explanation.scores[index, label]))
    full = probability(model, tokenizer, words, label)

    def loss(kept):
        return full - probability(model, tokenizer, [words[index] for index in sorted(kept)], label)

    counts = [1, 1, 1, 2, 4]  # of seven words, rounded up
    measures = comparison.methods["removal"]
    assert len(counts) == len(SHARES)
    assert measures.comprehensiveness == pytest.approx(sum(loss(order[n:]) for n in counts) / 5, abs=OUTPUT)
    assert measures.sufficiency == pytest.approx(sum(loss(order[:n]) for n in counts) / 5, abs=OUTPUT)
    curve = [loss(order[-(-step * 7 // 20) :]) for step in range(1, 21)]
    assert measures.area == pytest.approx(sum(curve) / 20, abs=OUTPUT)


def test_comparison_is_reproducible(classifier):
    first, second, other = (compare_methods(*classifier, TEXTS[:3], limit=2, seed=seed) for seed in (0, 0, 1))
    assert first == second
    assert first.methods["random"] != other.methods["random"]
    assert [*first.methods] == [
        "random", "contributions", "removal", "integrated_gradients", "gradient_x_input", "attention"
    ]  # fmt: skip
    assert first.num_predictions == 2


def test_tagger_is_compared_without_its_own_token(tagger):
    comparison = compare_methods(*tagger, TEXTS)
    assert 0 < comparison.num_predictions < 4  # a text of one word has no other token to erase
    assert all(abs(value) <= 1 for measures in comparison.methods.values() for value in measures)


def test_models_without_classes_are_refused():
    for head, changes, kind in (
        ("MaskAttnForSequenceClassification", {"problem_type": "regression", "num_labels": 1}, "regression"),
        ("RNNSearchForConditionalGeneration", {}, "text2text-generation"),
    ):
        with pytest.raises(ValueError, match=f"predicts classes or tags, got one for {kind}"):
            compare_methods(*build_model(head, **changes), TEXTS)


def test_methods_that_are_missing_are_named(classifier, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    comparison = compare_methods(*classifier, TEXTS[:1])
    assert sorted(comparison.skipped) == ["gradient_x_input", "integrated_gradients"]
    assert "pip install" in comparison.skipped["integrated_gradients"]
