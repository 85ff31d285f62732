import sys

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.metrics.task_metrics import require_package
from hf_maskattn.metrics.text import (
    PronunciationMetric,
    TextMatchMetric,
    TranslationMetric,
    decode_texts,
    error_rate,
    first_lossy_text,
    normalize_texts,
)
from tests.metrics.scoring import score


def _edits(a, b):
    """Return the Levenshtein distance, by its definition."""
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
def test_error_rate_matches_levenshtein_distance(unit, rows):
    split = list if unit == "character" else str.split
    edits = units = 0
    for prediction, references in rows:
        closest = min(references, key=lambda reference: _edits(split(prediction), split(reference)))
        edits += _edits(split(prediction), split(closest))
        units += len(split(closest))
    predictions, references = zip(*rows, strict=True)
    if units == 0:
        with pytest.raises(ValueError, match=f"references must contain at least one {unit}"):
            error_rate(predictions, references, unit=unit)
    else:
        assert error_rate(predictions, references, unit=unit) == edits / units


@pytest.mark.parametrize(
    ("predictions", "references", "rate"),
    [
        (["a b"], [["a", "a b c"]], 1 / 1),  # the first of the closest references
        (["a b"], [["a b c", "a"]], 1 / 3),
        (["", "a"], [["a b"], ["a"]], 2 / 3),
        (["a b c d"], [["x"]], 4),
        (["a", "b"], [[""], ["b"]], 1),
        (["", "b"], [[""], ["b"]], 0),
    ],
)
def test_error_rate_of_words(predictions, references, rate):
    assert error_rate(predictions, references, unit="word") == rate


def test_error_rate_requires_jiwer(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ImportError, match=r'Error rates require jiwer.*pip install "hf-maskattn\[examples\] @ git\+https'):
        require_package("jiwer", "Error rates")
    with pytest.raises(ImportError, match="jiwer"):
        error_rate(["a"], [["a"]], unit="word")


TEXTS = ["the cat", "2026-03-01", "Le café, oui"]


def build(kind, texts=TEXTS, **changes):
    return train_tokenizer(texts, **{"kind": kind, "vocab_size": 400, "max_length": 5, "for_generation": True, **changes})


def test_decode_texts_removes_special_tokens():
    tokenizer = build("char")
    (ids,) = tokenizer(["the cat"], return_attention_mask=False)["input_ids"]
    assert decode_texts(tokenizer, [[2, *ids, 0, 0], []]) == ["the cat", ""]
    assert decode_texts(tokenizer, [[*ids, -100]], excluded={-100}) == ["the cat"]


def test_decode_texts_keeps_unknown_token():
    tokenizer = build("char")
    assert decode_texts(tokenizer, [[*tokenizer("th")["input_ids"][:2], tokenizer.unk_token_id]]) == ["th[UNK]"]


def test_normalize_texts():
    assert normalize_texts([" e\u0301  A\n", ""], [["\u0435"], [" ", "é"]]) == (["é  A", ""], [["\u0435"], ["", "é"]])


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([["a"], []], r"row 1 \(counted from 0\) must have at least one reference"),
        ([], "The evaluation must have at least one row"),
    ],
)
def test_normalize_texts_requires_references(references, message):
    with pytest.raises(ValueError, match=message):
        normalize_texts(["a"] * len(references), references)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_first_lossy_text_of_lossless_tokenizers(kind):
    assert first_lossy_text(build(kind), [*TEXTS, " cafe\u0301 ", ""]) is None


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_first_lossy_text_of_lossy_tokenizers(kind):
    assert first_lossy_text(build(kind), TEXTS) == ("2026-03-01", "2026 - 03 - 01")


def test_first_lossy_text_lowercase_and_unknown_tokens():
    assert first_lossy_text(build("bpe", lowercase=True), TEXTS) == ("Le café, oui", "le café, oui")
    assert first_lossy_text(build("char", ["cat"]), ["act", "cut"]) == ("cut", "c[UNK]t")


def test_first_lossy_text_of_symbols():
    assert first_lossy_text(build("symbols", ["R IY D", "AH"]), ["R IY", "AH D"]) is None


def test_first_lossy_text_keeps_truncation_of_tokenizer(capfd):
    tokenizer = build("char")
    tokenizer("", truncation=True, max_length=3)
    before = tokenizer.backend_tokenizer.to_str()
    assert first_lossy_text(tokenizer, TEXTS) is None
    assert tokenizer.backend_tokenizer.to_str() == before
    assert '"max_length":3' in before
    assert "longer than" not in capfd.readouterr().err


def test_text_match_accepts_any_reference():
    values = score(TextMatchMetric, ["2026-03-01", "2026-03-02"], [["2026-03-01"], ["2026-03-22", "2026-04-12"]])
    assert values == {"exact_match": 0.5, "cer": 1 / 20}


@pytest.mark.parametrize(
    ("prediction", "reference", "is_match"),
    [("e\u0301", "é", True), (" a\n", "a", True), ("A", "a", False), ("a  b", "a b", False), ("", "", True), ("", "a", False)],
)
def test_text_match_normalizes_texts(prediction, reference, is_match):
    values = score(TextMatchMetric, [prediction, "x"], [[reference], ["x"]])
    assert values["exact_match"] == (1.0 if is_match else 0.5)
    assert (values["cer"] == 0) is is_match


def test_pronunciation_accepts_any_reference():
    references = ["R EH D", "R IY D"]
    values = score(PronunciationMetric, ["R IY D", " R  EH D", "R IY", "R OW D"], [references] * 4)
    # The last two have one edit each, in references of three phonemes.
    assert values == {"wer": 0.5, "per": 2 / 12}


def test_pronunciation_phoneme_is_one_unit():
    assert score(PronunciationMetric, ["HH"], [["H H"]]) == {"wer": 1.0, "per": 1.0}
    assert score(PronunciationMetric, ["HH IY", ""], [["SH IY"], ["AH"]]) == {"wer": 1.0, "per": 2 / 3}


def test_translation_matches_sacrebleu():
    predictions = ["The dog barks at the cat.", "It was not unexpected.", "The man bit him first."]
    references = [
        ["The dog barks at the cat.", "A dog barked at the cat."],
        ["It was no surprise to anybody."],
        ["The man had bitten the dog.", "The man bit him before."],
    ]
    columns = [[texts[0] for texts in references], [texts[1] if len(texts) > 1 else None for texts in references]]
    assert score(TranslationMetric, predictions, references) == {
        "bleu": pytest.approx(sacrebleu.corpus_bleu(predictions, columns).score),
        "chrf": pytest.approx(sacrebleu.corpus_chrf(predictions, columns).score),
    }


def test_translation_scores_from_0_to_100():
    sentence = ["the cat sat on the mat"]
    assert score(TranslationMetric, sentence, [sentence]) == {"bleu": pytest.approx(100), "chrf": pytest.approx(100)}
    assert score(TranslationMetric, [""], [sentence]) == {"bleu": 0.0, "chrf": 0.0}
    assert score(TranslationMetric, ["cafe\u0301 au lait noir"], [["café au lait noir"]])["bleu"] == pytest.approx(100)
    assert score(TranslationMetric, [text.upper() for text in sentence], [sentence])["bleu"] < 50
