import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    EvalPrediction,
)

from hf_maskattn.data.pair_encoding import collect_references, encode_pairs
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.metrics import evaluation_for, evaluation_for_generation
from hf_maskattn.metrics.task_metrics import LOWER_IS_BETTER

PAD, UNKNOWN, BOS, EOS = range(4)


def run(evaluation, logits, labels):
    predicted = evaluation.preprocess_logits(logits, labels)
    return evaluation.compute_metrics(EvalPrediction(predictions=predicted.numpy(), label_ids=labels.numpy())), predicted


def test_single_label_ignores_unlabeled_rows():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 0.0]])
    values, _ = run(evaluation_for("text-classification"), logits, torch.tensor([0, 1, -100]))
    assert values == {"accuracy": 1.0, "macro_f1": 1.0}


def test_multi_label_threshold():
    evaluation = evaluation_for("text-classification", problem_type="multi_label_classification")
    logits = torch.tensor([[0.1, -0.1], [-3.0, 2.0]])
    values, predicted = run(evaluation, logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert predicted.tolist() == [[1, 0], [0, 1]]
    assert values["subset_accuracy"] == 1.0


def test_regression_uses_float32():
    evaluation = evaluation_for("text-classification", problem_type="regression")
    logits = torch.tensor([[1.5], [2.0]], dtype=torch.bfloat16)
    values, predicted = run(evaluation, logits, torch.tensor([1.5, 3.0]))
    assert predicted.dtype is torch.float32
    assert values["mse"] == pytest.approx(0.5)


def test_spans_ignore_unlabeled_tokens():
    evaluation = evaluation_for("token-classification", label_names=["O", "B-X", "I-X"])
    labels = torch.tensor([[1, 2, 0, -100], [1, -100, -100, -100]])
    predictions = torch.tensor([[1, 2, 0, 1], [0, 1, 1, 1]])
    values, _ = run(evaluation, torch.nn.functional.one_hot(predictions, 3).float(), labels)
    assert values == {"f1": pytest.approx(2 / 3), "precision": 1.0, "recall": 0.5, "accuracy": 0.75}


def test_tags_without_spans_are_scored_separately():
    evaluation = evaluation_for("token-classification", label_names=["NOUN", "VERB"])
    labels = torch.tensor([[0, 1, -100]])
    values, _ = run(evaluation, torch.nn.functional.one_hot(torch.tensor([[0, 0, 1]]), 2).float(), labels)
    assert values["accuracy"] == 0.5


def test_tag_scheme_none_disables_spans():
    assert "f1" not in evaluation_for("token-classification", label_names=["O", "B-X"], tag_scheme="none").metric_names
    assert "f1" in evaluation_for("token-classification", label_names=["O", "B-X"], tag_scheme="IOB1").metric_names


def test_fill_mask_scores_masked_tokens_only():
    labels = torch.tensor([[-100, 7, -100], [3, -100, -100]])
    predictions = torch.tensor([[1, 7, 1], [2, 1, 1]])
    values, predicted = run(evaluation_for("fill-mask"), torch.nn.functional.one_hot(predictions, 9).float(), labels)
    assert values == {"masked_accuracy": 0.5}
    assert predicted.shape == labels.shape


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_evaluation_requires_labels(task):
    evaluation = evaluation_for(task, label_names=["O", "B-X"])
    labels = np.full((2, 3), -100) if task != "text-classification" else np.full(2, -100)
    with pytest.raises(ValueError, match="must have at least one label other than -100"):
        evaluation.compute_metrics(EvalPrediction(predictions=np.zeros_like(labels), label_ids=labels))


def test_evaluation_for_requires_seqeval(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval", None)
    with pytest.raises(ImportError, match=r'pip install "hf-maskattn\[examples\] @ git\+https'):
        evaluation_for("token-classification", label_names=["O", "B-X"])


@pytest.mark.parametrize(("task", "problem_type"), [("translation", None), ("text-classification", "ranking")])
def test_evaluation_for_rejects_unknown_tasks(task, problem_type):
    with pytest.raises(ValueError, match=r"(task|problem_type) must be .*, got '(translation|ranking)'"):
        evaluation_for(task, problem_type=problem_type)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["abcdef"], kind="char", vocab_size=20, max_length=99, for_generation=True)


@pytest.fixture(scope="module")
def ids(tokenizer):
    """Returns the token ids of texts in rows of equal length."""

    def encode(texts, prefix=(), padding_id=PAD, width=6):
        rows = [[*prefix, *tokenizer.convert_tokens_to_ids(list(text)), EOS] for text in texts]
        return np.array([row + [padding_id] * (width - len(row)) for row in rows])

    return encode


@pytest.mark.parametrize(
    ("metric", "names", "is_higher_better"),
    [
        ("text-match", ("exact_match", "cer"), [True, False]),
        ("pronunciation", ("wer", "per"), [False, False]),
        ("translation", ("bleu", "chrf"), [True, True]),
    ],
)
def test_generation_metrics_by_name(tokenizer, metric, names, is_higher_better):
    evaluation = evaluation_for_generation(metric, tokenizer)
    assert evaluation.metric_names == names
    assert [name not in LOWER_IS_BETTER for name in names] == is_higher_better
    assert evaluation.include_for_metrics == ()


def test_generation_labels_as_references(tokenizer, ids):
    evaluation = evaluation_for_generation("text-match", tokenizer)
    predictions = ids(["ab", "", "abce"], prefix=[BOS])
    predictions[0, -1] = -100
    values = evaluation.compute_metrics(EvalPrediction(predictions, ids(["ab", "", "abcd"], padding_id=-100)))
    assert values == {"exact_match": pytest.approx(2 / 3), "cer": 1 / 6}


def test_generation_unknown_token_is_no_match(tokenizer, ids):
    predictions = ids(["ab"])
    predictions[0, 2] = UNKNOWN
    evaluation = evaluation_for_generation("text-match", tokenizer)
    assert evaluation.compute_metrics(EvalPrediction(predictions, ids(["ab"])))["exact_match"] == 0


def test_generation_references_ignore_order_and_padding(tokenizer, ids):
    references = {
        (tuple(ids(["ab"], width=3)[0]), tuple(ids(["f"], width=2)[0])): ["d", "e"],
        (tuple(ids(["abc"])[0]), tuple(ids(["f"])[0])): ["long reference"],
    }
    evaluation = evaluation_for_generation("text-match", tokenizer, references=references)
    assert evaluation.include_for_metrics == ("inputs",)
    labels = ids(["f", "f"], padding_id=-100)
    labels[1, 3:] = PAD
    first, second = ids(["ab", "abc"])
    for order in ([first, second], [second, first], [np.roll(first, 3), np.where(second == PAD, -100, second)]):
        predictions = ids(["f" if row is second else "e" for row in order])
        values = evaluation.compute_metrics(EvalPrediction(ids(["e", "e"]), labels, inputs=np.array(order)))
        assert values["exact_match"] == 0.5, predictions


def test_generation_references_of_truncated_sources(tokenizer):
    rows = Dataset.from_dict({"source": ["abc", "abd", "?", "!"], "target": ["a", "b", "c", "d"]})
    columns = {"source_column": "source", "target_column": "target"}
    encoded = encode_pairs(rows, tokenizer, **columns, max_source_length=3, max_target_length=9)
    assert len({tuple(row) for row in encoded["input_ids"]}) == 2
    evaluation = evaluation_for_generation("text-match", tokenizer, references=collect_references(rows, encoded, "target"))
    sources, labels = (np.array(encoded[name][:], dtype=object) for name in ("input_ids", "labels"))
    for generated, expected in ((labels, 1.0), (labels[[1, 0, 3, 2]], 0.0)):
        values = evaluation.compute_metrics(EvalPrediction(generated, labels, inputs=sources))
        assert values["exact_match"] == expected


def test_generation_missing_references(tokenizer, ids):
    evaluation = evaluation_for_generation("text-match", tokenizer, references={((4, EOS), (4, EOS)): ["a"]})
    with pytest.raises(ValueError, match=r'Set training\.include_for_metrics: \["inputs"\]'):
        evaluation.compute_metrics(EvalPrediction(ids(["a"]), ids(["a"])))
    message = r"got none for the source ids \(5, 3\) and the labels \(4, 3\)\. Collect them .* with collect_references"
    with pytest.raises(ValueError, match=message):
        evaluation.compute_metrics(EvalPrediction(ids(["a"]), ids(["a"]), inputs=ids(["b"])))


def test_generation_rejects_logits(tokenizer):
    preprocess = evaluation_for_generation("text-match", tokenizer).preprocess_logits
    generated = torch.tensor([[1, 2]])
    assert preprocess(generated, generated) is generated
    for logits in (torch.zeros(1, 2, 3), (torch.zeros(1, 2, 3), torch.zeros(1))):
        with pytest.raises(ValueError, match=r"Set training\.predict_with_generate: true"):
            preprocess(logits, generated)


@pytest.mark.parametrize(
    ("metric", "package"), [("text-match", "jiwer"), ("pronunciation", "jiwer"), ("translation", "sacrebleu")]
)
def test_generation_requires_packages(monkeypatch, tokenizer, metric, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package}.*pip install "hf-maskattn\[examples\] @ git\+https'):
        evaluation_for_generation(metric, tokenizer)


def test_generation_rejects_unknown_metrics(tokenizer):
    with pytest.raises(ValueError, match="metric must be one of text-match, pronunciation, translation, got 'rouge'"):
        evaluation_for_generation("rouge", tokenizer)
