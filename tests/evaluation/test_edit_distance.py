import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.evaluation.edit_distance import error_rate, require_jiwer


def _edits(a, b):
    """The Levenshtein distance by its definition."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


WORDS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=5).map(" ".join)
ROWS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=4)


@pytest.mark.parametrize("unit", ["character", "word"])
@given(ROWS)
def test_edits_to_the_closest_reference_over_its_units(unit, rows):
    cut = list if unit == "character" else str.split
    edits = units = 0
    for prediction, references in rows:
        closest = min(references, key=lambda reference: _edits(cut(prediction), cut(reference)))
        edits += _edits(cut(prediction), cut(closest))
        units += len(cut(closest))
    predictions, references = zip(*rows, strict=True)
    if units == 0:
        with pytest.raises(ValueError, match=f"There is no {unit} in the references of this evaluation"):
            error_rate(predictions, references, unit=unit)
    else:
        assert error_rate(predictions, references, unit=unit) == edits / units


def test_of_references_that_are_equally_close_the_first_counts():
    assert error_rate(["a b"], [["a", "a b c"]], unit="word") == 1 / 1
    assert error_rate(["a b"], [["a b c", "a"]], unit="word") == 1 / 3


def test_empty_predictions_are_wrong_and_long_ones_more_than_wrong():
    assert error_rate(["", "a"], [["a b"], ["a"]], unit="word") == 2 / 3
    assert error_rate(["a b c d"], [["x"]], unit="word") == 4


def test_an_empty_reference_counts_what_is_put_in():
    assert error_rate(["a", "b"], [[""], ["b"]], unit="word") == 1
    assert error_rate(["", "b"], [[""], ["b"]], unit="word") == 0


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ImportError, match=r'Error rates need jiwer.*pip install "hf-maskattn\[examples\] @ git\+https'):
        require_jiwer()
    with pytest.raises(ImportError, match="jiwer"):
        error_rate(["a"], [["a"]], unit="word")
