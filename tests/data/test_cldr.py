import builtins
import datetime
import hashlib
import unicodedata
from collections import Counter

import babel
import pytest

from hf_maskattn.data import cldr
from hf_maskattn.data.cldr import (
    DATE_LOCALES,
    DATE_SPLIT_SIZES,
    LANGUAGES,
    build_cldr_date_fields,
    build_cldr_dates,
    build_cldr_languages,
    choose_by_hash,
    date_patterns,
    display_names,
    format_date,
    format_field,
    is_month_first,
    shuffle_dates,
    split_by_hash,
    split_pattern,
    unambiguous_patterns,
)

SCRIPTS = {
    "LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "DEVANAGARI", "BENGALI", "THAI", "CJK", "HANGUL",
}  # fmt: skip


def test_display_names_are_in_the_language():
    names = display_names("de")
    assert ("ZW", "Simbabwe") in names  # a territory
    assert ("de", "Deutsch") in names  # a language
    assert ("CHF", "Schweizer Franken") in names  # a currency
    assert ("Latn", "Lateinisch") in names  # a script


def test_date_patterns_are_complete_and_unique():
    patterns = date_patterns("de")
    assert patterns[:4] == ["EEEE, d. MMMM y", "d. MMMM y", "dd.MM.y", "dd.MM.yy"]
    swedish = date_patterns("sv")
    assert swedish.count("y-MM-dd") == 1  # the short date is also the skeleton yMd
    assert all(set("dMy") <= set(pattern) for pattern in patterns)


def test_split_pattern_returns_fields_and_literals():
    pieces = split_pattern("d 'de' MMMM")
    assert [value for is_field, value in pieces if is_field] == ["d", "MMMM"]
    assert "".join(value for _, value in pieces) == "d de MMMM"


def test_format_field_uses_the_language():
    date = datetime.date(2026, 3, 1)
    written = [format_field(field, date, "fr") for field in ("EEEE", "d", "dd", "MMMM", "yy")]
    assert written == ["dimanche", "1", "01", "mars", "26"]


@pytest.mark.parametrize(
    ("locale", "digits"), [("de", "1930"), ("ar", "1930"), ("ar_EG", "١٩٣٠"), ("mr", "१९३०"), ("bn", "১৯৩০")]
)
def test_format_field_uses_the_digits_of_the_locale(locale, digits):
    assert format_field("y", datetime.date(1930, 1, 1), locale) == digits


def test_format_field_rejects_unknown_digits():
    with pytest.raises(ValueError, match="locale='my' must be one of latn, arab, beng, deva, got 'mymr'"):
        format_field("y", datetime.date(1930, 1, 1), "my")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("M/d/y", True), ("LL.d.yy", True), ("d/M/y", False), ("y/M/d", False), ("MMM d, y", False), ("E, M/d/y", False)],
)
def test_is_month_first(pattern, expected):
    assert is_month_first(pattern) is expected


@pytest.mark.parametrize("build", [build_cldr_languages, build_cldr_date_fields, build_cldr_dates])
def test_build_without_babel_names_the_extra(build, monkeypatch):
    original = builtins.__import__
    cldr._load_locale.cache_clear()

    def without_babel(name, *args, **kwargs):
        if name.split(".")[0] == "babel":
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_babel)
    message = r'Built-in corpora require babel, which is not installed: pip install "hf-maskattn\[examples\] @ git\+https'
    with pytest.raises(ImportError, match=message):
        build()


def test_languages_sizes_and_classes(languages):
    rows = sum(split.num_rows for split in languages.values())
    assert 24_000 < rows < 26_000
    parts = {name: round(split.num_rows / rows, 1) for name, split in languages.items()}
    assert parts == {"train": 0.8, "validation": 0.1, "test": 0.1}
    for split in languages.values():
        assert split.features["label"].names == list(LANGUAGES)
        counts = Counter(split["label"][:])
        assert len(counts) == 30
        assert counts.most_common(1)[0][1] < 0.06 * split.num_rows


def test_languages_texts_are_unique_and_normalized(languages):
    texts = [text for split in languages.values() for text in split["text"][:]]
    assert len(texts) == len(set(texts))
    for text in texts:
        assert text == unicodedata.normalize("NFC", text).strip()
        assert any(character.isalpha() for character in text)


def test_languages_known_rows(languages):
    columns = [split[:] for split in languages.values()]
    language_of = {text: LANGUAGES[label] for split in columns for text, label in zip(*split.values(), strict=True)}
    assert language_of["Zimbábue"] == "pt"
    assert language_of["Repubblica Dominicana"] == "it"
    assert "Zimbabwe" not in language_of


@pytest.fixture
def small_names(monkeypatch):
    names = {
        "en": [("a", "Shared"), ("b", " Only e\u0301n "), ("CODE", "CODE"), ("d", "12"), ("e", "Only e\u0301n")],
        "de": [("a", "Shared"), ("b", "Nur deutsch")],
    }
    monkeypatch.setattr(cldr, "display_names", lambda language: names.get(language, []))
    return names


def _all_rows(splits):
    return {(name, row["text"], LANGUAGES[row["label"]]) for name, split in splits.items() for row in split}


def test_languages_drop_shared_names_and_codes(small_names):
    rows = {(text, language) for _, text, language in _all_rows(build_cldr_languages())}
    assert rows == {("Only én", "en"), ("Nur deutsch", "de")}


def test_languages_splits_depend_on_the_texts_only(small_names):
    small_names["en"][:] = [(str(number), f"name {number}") for number in range(50)]
    first = build_cldr_languages()
    small_names["en"].reverse()
    second = build_cldr_languages()
    assert {name: split.to_list() for name, split in first.items()} == {name: split.to_list() for name, split in second.items()}
    small_names["en"] += [(str(number), f"name {number}") for number in range(50, 99)]
    assert _all_rows(first) < _all_rows(build_cldr_languages())


TEXTS = [f"text {number}" for number in range(2000)]


def test_split_by_hash_sizes():
    splits = split_by_hash(TEXTS)
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(text for texts in splits.values() for text in texts) == sorted(TEXTS)
    assert 1500 < len(splits["train"]) < 1700
    assert all(150 < len(splits[name]) < 250 for name in ("validation", "test"))


def test_split_by_hash_is_independent_of_other_texts():
    few = split_by_hash(TEXTS[::-7])
    for name, texts in split_by_hash(TEXTS).items():
        assert few[name] == [text for text in texts if text in TEXTS[::-7]]


def test_split_by_hash_known_split():
    assert split_by_hash("abcdefgh") == {"train": ["d", "f", "b", "e", "g"], "validation": ["c"], "test": ["h", "a"]}


def _ambiguous_texts(written):
    """Return the pairs of a text and a date whose text also belongs to another date."""
    date_of = {}
    return [(text, date) for text, date in written if date_of.setdefault(text, date) != date]


@pytest.fixture(
    scope="module", params=[pytest.param("dates", id="small"), pytest.param("all_dates", id="full", marks=pytest.mark.slow)]
)
def columns(request):
    """Columns of each split, as lists."""
    return {name: split[:] for name, split in request.getfixturevalue(request.param).items()}


@pytest.fixture(scope="module")
def all_columns(all_dates):
    return {name: split[:] for name, split in all_dates.items()}


@pytest.mark.slow
def test_dates_sizes(all_dates):
    sizes = {name: split.num_rows for name, split in all_dates.items()}
    assert sizes == DATE_SPLIT_SIZES == {"train": 40_000, "validation": 2_000, "test": 5_000}


def test_dates_columns_and_languages(dates, columns):
    languages = {locale.split("_")[0] for locale in DATE_LOCALES}
    assert len(languages) == len(DATE_LOCALES) == 21
    for split in columns.values():
        assert list(split) == ["source", "target", "language"]
        assert set(split["language"]) <= languages
    assert set(columns["train"]["language"]) == languages
    assert dates["test"].info.license == "Unicode-3.0"


def test_dates_are_in_one_split(columns):
    targets = [target for split in columns.values() for target in split["target"]]
    assert len(set(targets)) == len(targets)


@pytest.mark.slow
def test_dates_are_of_all_years(all_columns):
    targets = [target for split in all_columns.values() for target in split["target"]]
    assert {datetime.date.fromisoformat(target).year for target in targets} == set(range(1900, 2100))


def test_dates_sources_determine_targets(columns):
    rows = [row for split in columns.values() for row in zip(split["source"], split["target"], strict=True)]
    assert _ambiguous_texts(rows) == []


def test_unambiguous_patterns_distinguish_all_days():
    # One year is enough, because only years have four digits. Only days up to 12 could be confused with months.
    days = [datetime.date(2026, month, day) for month in range(1, 13) for day in range(1, 13)]
    locale_patterns = [(pattern, locale) for locale in DATE_LOCALES for pattern in unambiguous_patterns(locale)]
    written = [(format_date(pattern, day, locale), day) for day in days for pattern, locale in locale_patterns]
    assert len(written) > 144 * 120
    assert _ambiguous_texts(written) == []


def test_unambiguous_patterns_have_full_years():
    for locale in DATE_LOCALES:
        patterns = unambiguous_patterns(locale)
        assert len(patterns) >= 4
        for pattern in patterns:
            fields = [value for is_field, value in split_pattern(pattern) if is_field]
            assert {field[0] for field in fields} >= {"d", "y"}
            assert "yy" not in fields


def test_dates_have_many_scripts(columns):
    letters = set("".join(columns["train"]["source"]))
    assert {unicodedata.name(letter).split()[0] for letter in letters if letter.isalpha()} >= SCRIPTS


@pytest.mark.slow
def test_dates_characters_occur_in_training(all_columns):
    known = set("".join(all_columns["train"]["source"]))
    assert set("".join(all_columns["validation"]["source"] + all_columns["test"]["source"])) <= known


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
def test_format_date_known_dates(locale, pattern, text):
    assert pattern in unambiguous_patterns(locale)
    assert format_date(pattern, datetime.date(2026, 3, 1), locale) == text


def test_dates_sources_match_targets(columns):
    split = columns["test"]
    for source, target in zip(split["source"], split["target"], strict=True):
        assert source == unicodedata.normalize("NFC", source).strip()
        year, _, day = target.split("-")
        numbers = "".join(str(unicodedata.digit(char)) if char.isdigit() else " " for char in source).split()
        assert year in numbers
        assert day in {number.zfill(2) for number in numbers}


@pytest.mark.slow
def test_dates_use_all_languages_and_patterns(all_columns):
    train = all_columns["train"]
    assert all(1_600 < count < 2_200 for count in Counter(train["language"]).values())
    german = [source for source, language in zip(train["source"], train["language"], strict=True) if language == "de"]
    assert {len(source.split()) for source in german} == {1, 2, 3, 4}


@pytest.mark.skipif(babel.__version__ != "2.18.0", reason="other versions of babel have other CLDR data")
@pytest.mark.parametrize(
    ("corpus", "column", "expected"),
    [
        ("languages", "text", "1f5de37ae6c17815"),
        pytest.param("all_dates", "source", "603b2e8a4df8c78d", marks=pytest.mark.slow),
        pytest.param("all_date_fields", "text", "daf1f9dc23681c5b", marks=pytest.mark.slow),
    ],
)
def test_corpora_have_known_digests(request, corpus, column, expected):
    rows = request.getfixturevalue(corpus)["test"][column][:20]
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16] == expected


def _shuffle(last):
    return shuffle_dates(datetime.date(2000, 1, 1), last)


def test_shuffle_dates_returns_each_date_once():
    shuffled = _shuffle(datetime.date(2000, 12, 31))
    assert len(set(shuffled)) == 366
    assert sorted(shuffled)[0] == datetime.date(2000, 1, 1)
    assert shuffled != sorted(shuffled)


def test_shuffle_dates_is_independent_of_other_dates():
    few, many = _shuffle(datetime.date(2000, 2, 1)), _shuffle(datetime.date(2001, 12, 31))
    ranks = {date: rank for rank, date in enumerate(many)}
    assert [ranks[date] for date in few] == sorted(ranks[date] for date in few)
    assert set(few) < set(many)


def test_choices_by_hash_are_even_and_independent():
    dates = _shuffle(datetime.date(2009, 12, 31))
    pairs = Counter((choose_by_hash(date, "abc", 0), choose_by_hash(date, "abc", 1)) for date in dates)
    assert len(pairs) == 9
    expected = pairs.total() / 9
    assert all(abs(count - expected) < 5 * expected**0.5 for count in pairs.values())
