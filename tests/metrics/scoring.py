"""Scores predictions with a metric class."""


def score(metric_class, predictions, references):
    """Compute a metric and check the names and types of its values."""
    values = metric_class(keep_in_memory=True).compute(predictions=predictions, references=references)
    assert tuple(values) == metric_class.names
    assert all(type(value) is float for value in values.values())
    return values
