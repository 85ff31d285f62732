import pytest

from hf_maskattn.evaluation.text_references import comparable_texts


def test_texts_are_composed_and_lose_white_space_at_their_ends_alone():
    assert comparable_texts([" e\u0301  A\n", ""], [["\u0435"], [" ", "é"]]) == (["é  A", ""], [["\u0435"], ["", "é"]])


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([["a"], []], r"row 1 \(counted from 0\) has no reference"),
        ([], "no rows in this evaluation, there is nothing to score"),
    ],
)
def test_nothing_to_compare_with_is_told(references, message):
    with pytest.raises(ValueError, match=message):
        comparable_texts(["a"] * len(references), references)
