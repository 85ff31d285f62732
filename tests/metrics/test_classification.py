import pytest

from hf_maskattn.metrics.classification import (
    MaskedTokenMetric,
    MultiLabelMetric,
    RegressionMetric,
    SingleLabelMetric,
)
from tests.metrics.scoring import score


def test_single_label_macro_f1_weighs_classes_equally():
    values = score(SingleLabelMetric, [0, 0, 0, 0], [0, 0, 0, 1])
    assert values == {"accuracy": 0.75, "macro_f1": pytest.approx((6 / 7 + 0) / 2)}


def test_multi_label_metric():
    values = score(MultiLabelMetric, [[1, 0], [1, 1]], [[1, 0], [0, 1]])
    assert values == {"micro_f1": pytest.approx(4 / 5), "macro_f1": pytest.approx((2 / 3 + 1) / 2), "subset_accuracy": 0.5}


def test_regression_metric():
    values = score(RegressionMetric, [1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert values == {"mse": pytest.approx(14 / 3), "pearson": pytest.approx(1.0)}


@pytest.mark.parametrize(("predictions", "references"), [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0]), ([1.0], [2.0])])
def test_regression_constant_values_have_zero_correlation(predictions, references):
    assert score(RegressionMetric, predictions, references)["pearson"] == 0.0


def test_masked_token_metric():
    assert score(MaskedTokenMetric, [5, 6, 7], [5, 6, 8]) == {"masked_accuracy": pytest.approx(2 / 3)}
