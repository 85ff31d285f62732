from hf_maskattn.metrics.tagging import SpanMetric, score_by_entity
from tests.metrics.scoring import score


def test_span_metric_requires_type_and_boundaries():
    references = [["B-DAY", "I-DAY", "O", "B-YEAR"]]
    predictions = [["B-DAY", "O", "O", "B-YEAR"]]
    assert score(SpanMetric, predictions, references) == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.75}


def test_span_metric_without_spans():
    assert score(SpanMetric, [["O", "O"]], [["O", "O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}


def test_score_by_entity_without_entities_is_empty():
    assert score_by_entity([["O", "O"]], [["O", "O"]]) == {}
    assert score_by_entity([["O", "B-X"]], [["O", "O"]])["X"]["support"] == 1
