import pytest

from hf_maskattn.data.tokenizer_training import train_tokenizer
from hf_maskattn.evaluation.text_round_trip import first_changed_text

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
