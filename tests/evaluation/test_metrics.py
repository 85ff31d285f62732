import pytest

from hf_maskattn.evaluation.masked_tokens import MaskedTokenMetric
from hf_maskattn.evaluation.multi_label import MultiLabelMetric
from hf_maskattn.evaluation.regression import RegressionMetric
from hf_maskattn.evaluation.single_label import SingleLabelMetric
from hf_maskattn.evaluation.spans import SpanMetric, are_span_tags


def score(metric_class, predictions, references):
    values = metric_class(keep_in_memory=True).compute(predictions=predictions, references=references)
    assert tuple(values) == metric_class.names
    assert all(type(value) is float for value in values.values())
    return values


def test_single_label_counts_rare_classes_as_much_as_frequent_ones():
    values = score(SingleLabelMetric, [0, 0, 0, 0], [0, 0, 0, 1])
    assert values == {"accuracy": 0.75, "macro_f1": pytest.approx((6 / 7 + 0) / 2)}


def test_multi_label():
    values = score(MultiLabelMetric, [[1, 0], [1, 1]], [[1, 0], [0, 1]])
    assert values == {
        "micro_f1": pytest.approx(4 / 5),
        "macro_f1": pytest.approx((2 / 3 + 1) / 2),
        "subset_accuracy": 0.5,
    }


def test_regression():
    values = score(RegressionMetric, [1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert values == {"mse": pytest.approx(14 / 3), "pearson": pytest.approx(1.0)}


@pytest.mark.parametrize(("predictions", "references"), [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0]), ([1.0], [2.0])])
def test_correlation_is_zero_where_a_side_is_constant(predictions, references):
    assert score(RegressionMetric, predictions, references)["pearson"] == 0.0


def test_a_span_counts_only_if_its_ends_and_its_type_are_right():
    references = [["B-DAY", "I-DAY", "O", "B-YEAR"]]
    predictions = [["B-DAY", "O", "O", "B-YEAR"]]
    assert score(SpanMetric, predictions, references) == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.75}


def test_without_any_span_the_scores_are_zero():
    assert score(SpanMetric, [["O", "O"]], [["O", "O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}


def test_masked_tokens():
    assert score(MaskedTokenMetric, [5, 6, 7], [5, 6, 8]) == {"masked_accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("names", "expected"), [(["O", "B-X", "I-X"], True), (["NOUN", "VERB"], False), (["O"], False), (["O", "X"], False)]
)
def test_span_tags_are_told_from_other_tags(names, expected):
    assert are_span_tags(names) is expected
