import datetime
import hashlib
import re
import unicodedata

import babel
import pytest

from hf_maskattn.data.cldr_date_fields import LOCALES, TAGS
from hf_maskattn.data.tag_encoding import find_words


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
        assert set(split["locale"]) == set(LOCALES)


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
def test_the_corpus_is_the_same_on_every_machine(date_fields):
    digest = hashlib.sha256("\n".join(date_fields["test"]["text"][:20]).encode()).hexdigest()
    assert digest[:16] == "daf1f9dc23681c5b"
