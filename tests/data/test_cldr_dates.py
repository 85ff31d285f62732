import datetime
import hashlib
import re
import unicodedata
from collections import Counter

import babel
import pytest

from hf_maskattn.data.cldr import split_pattern
from hf_maskattn.data.cldr_dates import FIELD_LOCALES, LOCALES, TAGS, clear_patterns, draw_dates, write_date
from hf_maskattn.data.tag_encoding import find_words

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


@pytest.fixture(scope="module")
def rows(date_fields):
    return [{**row, "tags": [TAGS[tag] for tag in row["tags"]]} for split in date_fields.values() for row in split]


def _field(row, name):
    return [token for token, tag in zip(row["tokens"], row["tags"], strict=True) if tag.endswith(name)]


def test_sizes(date_fields):
    assert {name: split.num_rows for name, split in date_fields.items()} == {
        "train": 20_000,
        "validation": 2_000,
        "test": 2_000,
    }
    for split in date_fields.values():
        assert split.features["tags"].feature.names == list(TAGS)
        assert set(split["locale"]) == set(FIELD_LOCALES)


def test_tokens_are_the_words_and_marks_of_the_text(rows):
    for row in rows:
        spans = find_words(row["text"], row["tokens"])
        covered = "".join(row["text"][start:end] for start, end in spans)
        assert covered == re.sub(r"\s", "", row["text"])
        assert len(row["tokens"]) == len(row["tags"])
        assert row["text"] == unicodedata.normalize("NFC", row["text"]).strip()


def test_each_date_has_one_day_one_month_one_year_and_at_most_one_weekday(rows):
    for row in rows:
        assert [row["tags"].count(f"B-{name}") for name in ("DAY", "MONTH", "YEAR")] == [1, 1, 1]
        assert row["tags"].count("B-WEEKDAY") <= 1


def test_inside_tags_follow_their_beginning(rows):
    for row in rows:
        for before, tag in zip(["O", *row["tags"]], row["tags"], strict=False):
            if tag.startswith("I-"):
                assert before[2:] == tag[2:]


def test_days_and_years_are_numbers_in_range(rows):
    for row in rows:
        (day,), (year,) = _field(row, "-DAY"), _field(row, "-YEAR")
        assert 1 <= int(day) <= 31
        assert len(year) == 2 or 1950 <= int(year) <= 2049


def test_written_weekdays_belong_to_their_dates(rows):
    names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    checked = 0
    for row in rows:
        if row["locale"] == "en" and (match := re.fullmatch(r"(\w+), (\w+ \d+, \d{4})", row["text"])):
            if match[1] not in names:
                continue
            date = datetime.datetime.strptime(match[2], "%B %d, %Y").date()
            assert names[date.weekday()] == match[1]
            checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    ("locale", "pattern", "tagged"),
    [
        ("es", r"\d+ de \w+ de \d{4}", ["B-DAY", "O", "B-MONTH", "O", "B-YEAR"]),
        ("ru", r"\d+ \w+ \d{4}\u202f\w\.", ["B-DAY", "B-MONTH", "B-YEAR", "O", "O"]),
        ("da", r"\d+\. \w+\. \d{4}", ["B-DAY", "O", "B-MONTH", "I-MONTH", "B-YEAR"]),
        ("vi", r"\d+ tháng \d+, \d{4}", ["B-DAY", "B-MONTH", "I-MONTH", "O", "B-YEAR"]),
        ("sv", r"\d{4}-\d\d-\d\d", ["B-YEAR", "O", "B-MONTH", "O", "B-DAY"]),
        ("id", r"\d+/\d+/\d{4}", ["B-DAY", "O", "B-MONTH", "O", "B-YEAR"]),
        (
            "pt",
            r"\w+-feira, \d+ de \w+ de \d{4}",
            ["B-WEEKDAY", "I-WEEKDAY", "I-WEEKDAY", "O", "B-DAY", "O", "B-MONTH", "O", "B-YEAR"],
        ),
    ],
)
def test_tags_follow_the_pattern(rows, locale, pattern, tagged):
    matching = [row for row in rows if row["locale"] == locale and re.fullmatch(pattern, row["text"])]
    assert len(matching) > 10
    assert all(row["tags"] == tagged for row in matching)


def test_numbers_alone_never_start_with_the_month(rows):
    numeric = [row for row in rows if not re.search(r"[^\W\d]", row["text"])]
    assert len(numeric) > 2_000
    for row in numeric:
        assert [tag for tag in row["tags"] if tag != "O"] in (
            ["B-DAY", "B-MONTH", "B-YEAR"],
            ["B-YEAR", "B-MONTH", "B-DAY"],
        )


def test_no_text_occurs_twice(rows):
    texts = [row["text"] for row in rows]
    assert len(texts) == len(set(texts))


@pytest.mark.skipif(babel.__version__ != "2.18.0", reason="another babel brings other CLDR data")
def test_the_tagged_corpus_is_the_same_on_every_machine(date_fields):
    digest = hashlib.sha256("\n".join(date_fields["test"]["text"][:20]).encode()).hexdigest()
    assert digest[:16] == "daf1f9dc23681c5b"


def _draw(last):
    return draw_dates(datetime.date(2000, 1, 1), last)


def test_every_date_is_drawn_once_and_not_in_order():
    drawn = [date.date for date in _draw(datetime.date(2000, 12, 31))]
    assert len(set(drawn)) == 366
    assert sorted(drawn)[0] == datetime.date(2000, 1, 1)
    assert drawn != sorted(drawn)


def test_what_a_date_draws_does_not_depend_on_the_others():
    few, many = _draw(datetime.date(2000, 2, 1)), _draw(datetime.date(2001, 12, 31))
    ranks = {date.date: rank for rank, date in enumerate(many)}
    assert [ranks[date.date] for date in few] == sorted(ranks[date.date] for date in few)
    assert set(few) < set(many)


def test_draws_are_even_and_independent():
    pairs = Counter((date.draw("abc", 0), date.draw("abc", 1)) for date in _draw(datetime.date(2009, 12, 31)))
    assert len(pairs) == 9
    expected = pairs.total() / 9
    assert all(abs(count - expected) < 5 * expected**0.5 for count in pairs.values())
