import builtins
import datetime
import hashlib
import unicodedata
from collections import Counter

import babel
import pytest

from hf_maskattn.data import cldr as cldr_languages
from hf_maskattn.data.cldr import (
    LANGUAGES,
    build_cldr_languages,
    date_patterns,
    display_names,
    has_month_first_numbers,
    hashed_splits,
    split_pattern,
    write_field,
)
from hf_maskattn.data.cldr_dates import build_cldr_date_fields, build_cldr_dates


def test_display_names_are_in_the_language_asked_for():
    names = display_names("de")
    assert ("ZW", "Simbabwe") in names  # a territory
    assert ("de", "Deutsch") in names  # a language
    assert ("CHF", "Schweizer Franken") in names  # a currency
    assert ("Latn", "Lateinisch") in names  # a script


def test_date_patterns_are_complete_dates_without_repetition():
    patterns = date_patterns("de")
    assert patterns[:4] == ["EEEE, d. MMMM y", "d. MMMM y", "dd.MM.y", "dd.MM.yy"]
    swedish = date_patterns("sv")
    assert swedish.count("y-MM-dd") == 1  # the short date is also the skeleton yMd
    assert all(set("dMy") <= set(pattern) for pattern in patterns)


def test_a_pattern_is_split_into_fields_and_literals():
    parts = split_pattern("d 'de' MMMM")
    assert [value for is_field, value in parts if is_field] == ["d", "MMMM"]
    assert "".join(value for _, value in parts) == "d de MMMM"


def test_a_field_is_written_in_the_language_asked_for():
    date = datetime.date(2026, 3, 1)
    assert [write_field(field, date, "fr") for field in ("EEEE", "d", "dd", "MMMM", "yy")] == [
        "dimanche",
        "1",
        "01",
        "mars",
        "26",
    ]


@pytest.mark.parametrize(
    ("locale", "digits"), [("de", "1930"), ("ar", "1930"), ("ar_EG", "١٩٣٠"), ("mr", "१९३०"), ("bn", "১৯৩০")]
)
def test_numbers_are_in_the_digits_of_the_locale(locale, digits):
    assert write_field("y", datetime.date(1930, 1, 1), locale) == digits


def test_unknown_digits_are_told():
    with pytest.raises(ValueError, match="locale='my' writes numbers in 'mymr'; known are latn, arab, beng, deva"):
        write_field("y", datetime.date(1930, 1, 1), "my")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("M/d/y", True), ("LL.d.yy", True), ("d/M/y", False), ("y/M/d", False), ("MMM d, y", False), ("E, M/d/y", False)],
)
def test_numbers_with_the_month_first_are_found(pattern, expected):
    assert has_month_first_numbers(pattern) is expected


@pytest.mark.parametrize("build", [build_cldr_languages, build_cldr_date_fields, build_cldr_dates])
def test_without_babel_the_extra_is_named(build, monkeypatch):
    original = builtins.__import__

    def without_babel(name, *args, **kwargs):
        if name.split(".")[0] == "babel":
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_babel)
    with pytest.raises(ImportError, match=r'built-in corpora need babel: pip install "hf-maskattn\[examples\] @ git\+https'):
        build()


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


TEXTS = [f"text {number}" for number in range(2000)]


def test_shares():
    splits = hashed_splits(TEXTS)
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(text for texts in splits.values() for text in texts) == sorted(TEXTS)
    assert 1500 < len(splits["train"]) < 1700
    assert all(150 < len(splits[name]) < 250 for name in ("validation", "test"))


def test_a_text_stays_where_it_is():
    few = hashed_splits(TEXTS[::-7])
    for name, texts in hashed_splits(TEXTS).items():
        assert few[name] == [text for text in texts if text in TEXTS[::-7]]


def test_the_splits_are_the_same_on_every_machine():
    assert hashed_splits("abcdefgh") == {"train": ["d", "f", "b", "e", "g"], "validation": ["c"], "test": ["h", "a"]}
