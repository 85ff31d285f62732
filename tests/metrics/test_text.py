import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.metrics.text import comparable_texts, decode_texts, error_rate, first_changed_text, require_jiwer


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


def build_tokenizer(kind, **changes):
    settings = {"kind": kind, "vocab_size": 300, "max_length": 9, "for_generation": True}
    return train_tokenizer(["the cat, жий 日"], **{**settings, **changes})


def test_texts_come_back_without_what_stands_around_them():
    tokenizer = build_tokenizer("char")
    (ids,) = tokenizer(["the cat"], return_attention_mask=False)["input_ids"]
    assert decode_texts(tokenizer, [[2, *ids, 0, 0], []]) == ["the cat", ""]
    assert decode_texts(tokenizer, [[*ids, -100]], dropped={-100}) == ["the cat"]


def test_an_unknown_token_stays():
    tokenizer = build_tokenizer("char")
    assert decode_texts(tokenizer, [[*tokenizer("th")["input_ids"][:2], tokenizer.unk_token_id]]) == ["th[UNK]"]


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


TEXTS = ["the cat", "2026-03-01", "Le café, oui"]


def build(kind, texts=TEXTS, **changes):
    return train_tokenizer(texts, **{"kind": kind, "vocab_size": 400, "max_length": 5, "for_generation": True, **changes})


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_texts_that_come_back_are_none(kind):
    assert first_changed_text(build(kind), [*TEXTS, " cafe\u0301 ", ""]) is None


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_the_first_text_that_does_not_come_back_is_told_with_what_becomes_of_it(kind):
    assert first_changed_text(build(kind), TEXTS) == ("2026-03-01", "2026 - 03 - 01")


def test_capitals_and_unknown_tokens_do_not_come_back():
    assert first_changed_text(build("bpe", lowercase=True), TEXTS) == ("Le café, oui", "le café, oui")
    assert first_changed_text(build("char", ["cat"]), ["act", "cut"]) == ("cut", "c[UNK]t")


def test_symbols_come_back():
    assert first_changed_text(build("symbols", ["R IY D", "AH"]), ["R IY", "AH D"]) is None


def test_the_cut_of_the_tokenizer_stays_and_does_not_count(capfd):
    tokenizer = build("char")
    tokenizer("", truncation=True, max_length=3)
    before = tokenizer.backend_tokenizer.to_str()
    assert first_changed_text(tokenizer, TEXTS) is None
    assert tokenizer.backend_tokenizer.to_str() == before
    assert '"max_length":3' in before
    assert "longer than" not in capfd.readouterr().err
