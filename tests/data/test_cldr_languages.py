import hashlib
import unicodedata
from collections import Counter

import babel
import pytest

from hf_maskattn.data import cldr_languages
from hf_maskattn.data.cldr_languages import LANGUAGES, build_cldr_languages


def test_sizes_and_classes(languages):
    rows = sum(split.num_rows for split in languages.values())
    assert 24_000 < rows < 26_000
    assert {name: round(split.num_rows / rows, 1) for name, split in languages.items()} == {
        "train": 0.8,
        "validation": 0.1,
        "test": 0.1,
    }
    for split in languages.values():
        assert split.features["label"].names == list(LANGUAGES)
        counts = Counter(split["label"])
        assert len(counts) == 30
        assert counts.most_common(1)[0][1] < 0.06 * split.num_rows


def test_every_text_occurs_once_in_all_splits(languages):
    texts = [text for split in languages.values() for text in split["text"]]
    assert len(texts) == len(set(texts))


def test_texts_are_clean(languages):
    for split in languages.values():
        for text in split["text"]:
            assert text == unicodedata.normalize("NFC", text).strip()
            assert any(character.isalpha() for character in text)


def test_known_rows(languages):
    language_of = {row["text"]: LANGUAGES[row["label"]] for split in languages.values() for row in split}
    assert language_of["Zimbábue"] == "pt"
    assert language_of["Repubblica Dominicana"] == "it"
    assert "Zimbabwe" not in language_of


@pytest.fixture
def small_names(monkeypatch):
    names = {
        "en": [("a", "Shared"), ("b", " Only e\u0301n "), ("CODE", "CODE"), ("d", "12"), ("e", "Only e\u0301n")],
        "de": [("a", "Shared"), ("b", "Nur deutsch")],
    }
    monkeypatch.setattr(cldr_languages, "display_names", lambda language: names.get(language, []))
    return names


def _all_rows(splits):
    return {(name, row["text"], LANGUAGES[row["label"]]) for name, split in splits.items() for row in split}


def test_shared_names_codes_and_repetitions_are_dropped(small_names):
    rows = {(text, language) for _, text, language in _all_rows(build_cldr_languages())}
    assert rows == {("Only én", "en"), ("Nur deutsch", "de")}


def test_the_split_of_a_text_depends_on_nothing_else(small_names):
    before = _all_rows(build_cldr_languages())
    small_names["en"][:0] = [(str(number), f"name {number}") for number in range(50)]
    assert before < _all_rows(build_cldr_languages())


def test_the_order_of_the_rows_is_fixed(languages, small_names):
    small_names["en"][:] = [(str(number), f"name {number}") for number in range(50)]
    first = build_cldr_languages()
    small_names["en"].reverse()
    second = build_cldr_languages()
    assert {name: split.to_list() for name, split in first.items()} == {name: split.to_list() for name, split in second.items()}


@pytest.mark.skipif(babel.__version__ != "2.18.0", reason="another babel brings other CLDR data")
def test_the_corpus_is_the_same_on_every_machine(languages):
    digest = hashlib.sha256("\n".join(languages["test"]["text"][:20]).encode()).hexdigest()
    assert digest[:16] == "1f5de37ae6c17815"
