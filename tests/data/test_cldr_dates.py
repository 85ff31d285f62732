import datetime
import hashlib
import unicodedata
from collections import Counter

import babel
import pytest

from hf_maskattn.data.cldr import split_pattern
from hf_maskattn.data.cldr_dates import LOCALES, clear_patterns, write_date

SCRIPTS = {
    "LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "DEVANAGARI", "BENGALI", "THAI", "CJK", "HANGUL",
}  # fmt: skip


def _two_dates_with_one_text(written):
    """Find a text that stands for two dates, among dates written as (text, date)."""
    date_of = {}
    return [(text, date) for text, date in written if date_of.setdefault(text, date) != date]


@pytest.fixture(scope="module")
def columns(dates):
    """The columns of each split, as lists."""
    return {name: split[:] for name, split in dates.items()}


def test_sizes_columns_and_languages(dates, columns):
    assert {name: split.num_rows for name, split in dates.items()} == {"train": 40_000, "validation": 2_000, "test": 5_000}
    languages = {locale.split("_")[0] for locale in LOCALES}
    assert len(languages) == len(LOCALES) == 21
    for split in columns.values():
        assert list(split) == ["source", "target", "language"]
        assert set(split["language"]) == languages
    assert dates["test"].info.license == "Unicode-3.0"


def test_no_date_is_in_two_splits(columns):
    targets = [target for split in columns.values() for target in split["target"]]
    assert len(set(targets)) == len(targets) == 47_000
    assert {datetime.date.fromisoformat(target).year for target in targets} == set(range(1900, 2100))


def test_equal_sources_have_equal_targets(columns):
    rows = [row for split in columns.values() for row in zip(split["source"], split["target"], strict=True)]
    assert _two_dates_with_one_text(rows) == []


def test_no_two_days_are_ever_written_the_same():
    # One year tells of all, for no other number has four digits; and only days up to 12 could be months.
    days = [datetime.date(2026, month, day) for month in range(1, 13) for day in range(1, 13)]
    ways = [(pattern, locale) for locale in LOCALES for pattern in clear_patterns(locale)]
    written = [(write_date(pattern, day, locale), day) for day in days for pattern, locale in ways]
    assert len(written) > 144 * 120
    assert _two_dates_with_one_text(written) == []


def test_every_language_writes_dates_in_several_ways_with_the_whole_year():
    for locale in LOCALES:
        patterns = clear_patterns(locale)
        assert len(patterns) >= 4
        for pattern in patterns:
            fields = [value for is_field, value in split_pattern(pattern) if is_field]
            assert {field[0] for field in fields} >= {"d", "y"}
            assert "yy" not in fields


def test_many_scripts(columns):
    letters = set("".join(columns["test"]["source"]))
    assert {unicodedata.name(letter).split()[0] for letter in letters if letter.isalpha()} >= SCRIPTS


def test_every_character_of_the_other_splits_is_known_from_training(columns):
    known = set("".join(columns["train"]["source"]))
    assert set("".join(columns["validation"]["source"] + columns["test"]["source"])) <= known


@pytest.mark.parametrize(
    ("locale", "pattern", "text"),
    [
        ("en", "EEEE, MMMM d, y", "Sunday, March 1, 2026"),
        ("de", "dd.MM.y", "01.03.2026"),
        ("ru", "dd.MM.y", "01.03.2026"),
        ("ru", "d MMMM y\u202f'г'.", "1 марта 2026\u202fг."),  # noqa: RUF001
        ("ar_EG", "d MMMM y", "١ مارس ٢٠٢٦"),  # noqa: RUF001
        ("mr", "d MMMM, y", "१ मार्च, २०२६"),
        ("th", "d MMMM G y", "1 มีนาคม ค.ศ. 2026"),
        ("zh", "y年M月d日EEEE", "2026年3月1日星期日"),
        ("he", "d בMMMM y", "1 במרץ 2026"),
    ],
)
def test_dates_as_the_languages_write_them(locale, pattern, text):
    assert pattern in clear_patterns(locale)
    assert write_date(pattern, datetime.date(2026, 3, 1), locale) == text


def test_sources_are_composed_and_belong_to_their_targets(columns):
    split = columns["test"]
    for source, target in zip(split["source"], split["target"], strict=True):
        assert source == unicodedata.normalize("NFC", source).strip()
        year, _, day = target.split("-")
        numbers = "".join(str(unicodedata.digit(sign)) if sign.isdigit() else " " for sign in source).split()
        assert year in numbers
        assert day in {number.zfill(2) for number in numbers}


def test_a_corpus_is_built_of_all_languages_and_patterns(columns):
    train = columns["train"]
    assert all(1_600 < count < 2_200 for count in Counter(train["language"]).values())
    german = [source for source, language in zip(train["source"], train["language"], strict=True) if language == "de"]
    assert {len(source.split()) for source in german} == {1, 2, 3, 4}


@pytest.mark.skipif(babel.__version__ != "2.18.0", reason="another babel brings other CLDR data")
def test_the_corpus_is_the_same_on_every_machine(dates):
    digest = hashlib.sha256("\n".join(dates["test"]["source"][:20]).encode()).hexdigest()
    assert digest[:16] == "603b2e8a4df8c78d"
