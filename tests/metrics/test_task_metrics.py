import sys

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_maskattn.metrics import evaluation_for


def run(evaluation, logits, labels):
    reduced = evaluation.preprocess_logits(logits, labels)
    return evaluation.compute_metrics(EvalPrediction(predictions=reduced.numpy(), label_ids=labels.numpy())), reduced


def test_single_label_ignores_rows_without_a_label():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 0.0]])
    values, _ = run(evaluation_for("text-classification"), logits, torch.tensor([0, 1, -100]))
    assert values == {"accuracy": 1.0, "macro_f1": 1.0}


def test_multi_label_takes_labels_above_one_half():
    evaluation = evaluation_for("text-classification", problem_type="multi_label_classification")
    logits = torch.tensor([[0.1, -0.1], [-3.0, 2.0]])
    values, reduced = run(evaluation, logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert reduced.tolist() == [[1, 0], [0, 1]]
    assert values["subset_accuracy"] == 1.0


def test_regression_scores_in_full_precision():
    evaluation = evaluation_for("text-classification", problem_type="regression")
    logits = torch.tensor([[1.5], [2.0]], dtype=torch.bfloat16)
    values, reduced = run(evaluation, logits, torch.tensor([1.5, 3.0]))
    assert reduced.dtype is torch.float32
    assert values["mse"] == pytest.approx(0.5)


def test_tags_are_scored_as_spans_of_real_tokens_only():
    evaluation = evaluation_for("token-classification", label_names=["O", "B-X", "I-X"])
    labels = torch.tensor([[1, 2, 0, -100], [1, -100, -100, -100]])
    predictions = torch.tensor([[1, 2, 0, 1], [0, 1, 1, 1]])
    values, _ = run(evaluation, torch.nn.functional.one_hot(predictions, 3).float(), labels)
    assert values == {"f1": pytest.approx(2 / 3), "precision": 1.0, "recall": 0.5, "accuracy": 0.75}


def test_tags_that_mark_no_spans_are_scored_one_by_one():
    evaluation = evaluation_for("token-classification", label_names=["NOUN", "VERB"])
    labels = torch.tensor([[0, 1, -100]])
    values, _ = run(evaluation, torch.nn.functional.one_hot(torch.tensor([[0, 0, 1]]), 2).float(), labels)
    assert values["accuracy"] == 0.5


def test_tags_are_scored_one_by_one_where_their_scheme_is_none():
    assert "f1" not in evaluation_for("token-classification", label_names=["O", "B-X"], tag_scheme="none").metric_names
    assert "f1" in evaluation_for("token-classification", label_names=["O", "B-X"], tag_scheme="IOB1").metric_names


def test_masked_language_modeling_scores_masked_tokens_only():
    labels = torch.tensor([[-100, 7, -100], [3, -100, -100]])
    predictions = torch.tensor([[1, 7, 1], [2, 1, 1]])
    values, reduced = run(evaluation_for("fill-mask"), torch.nn.functional.one_hot(predictions, 9).float(), labels)
    assert values == {"masked_accuracy": 0.5}
    assert reduced.shape == labels.shape


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_nothing_to_score_is_an_error_that_says_so(task):
    evaluation = evaluation_for(task, label_names=["O", "B-X"])
    nothing = np.full((2, 3), -100) if task != "text-classification" else np.full(2, -100)
    with pytest.raises(ValueError, match="nothing to score"):
        evaluation.compute_metrics(EvalPrediction(predictions=np.zeros_like(nothing), label_ids=nothing))


def test_missing_seqeval_is_told_before_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval", None)
    with pytest.raises(ImportError, match=r'pip install "hf-maskattn\[examples\] @ git\+https'):
        evaluation_for("token-classification", label_names=["O", "B-X"])


@pytest.mark.parametrize(("task", "problem_type"), [("translation", None), ("text-classification", "ranking")])
def test_unknown_tasks_are_refused(task, problem_type):
    with pytest.raises(ValueError, match="has no metrics: use"):
        evaluation_for(task, problem_type=problem_type)
