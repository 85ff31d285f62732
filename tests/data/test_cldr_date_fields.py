import datetime
import re
import unicodedata

import pytest

from hf_maskattn.data.cldr import FIELD_LOCALES, FIELD_SPLIT_SIZES, FIELD_TAGS
from hf_maskattn.data.tag_encoding import locate_words


def _rows(splits):
    rows = []
    for split in splits.values():
        columns = split[:]
        for text, tokens, tags, locale in zip(*columns.values(), strict=True):
            rows.append({"text": text, "tokens": tokens, "tags": [FIELD_TAGS[tag] for tag in tags], "locale": locale})
    return rows


@pytest.fixture(
    scope="module",
    params=[pytest.param("date_fields", id="small"), pytest.param("all_date_fields", id="full", marks=pytest.mark.slow)],
)
def rows(request):
    return _rows(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def all_rows(all_date_fields):
    return _rows(all_date_fields)


def _field(row, name):
    return [token for token, tag in zip(row["tokens"], row["tags"], strict=True) if tag.endswith(name)]


@pytest.mark.slow
def test_fields_sizes_and_locales(all_date_fields):
    sizes = {name: split.num_rows for name, split in all_date_fields.items()}
    assert sizes == FIELD_SPLIT_SIZES == {"train": 20_000, "validation": 2_000, "test": 2_000}
    for split in all_date_fields.values():
        assert set(split["locale"][:]) == set(FIELD_LOCALES)


def test_fields_tag_names(date_fields):
    assert all(split.features["tags"].feature.names == list(FIELD_TAGS) for split in date_fields.values())


def test_fields_tokens_cover_the_text(rows):
    for row in rows:
        spans = locate_words(row["text"], row["tokens"])
        covered = "".join(row["text"][start:end] for start, end in spans)
        assert covered == re.sub(r"\s", "", row["text"])
        assert len(row["tokens"]) == len(row["tags"])
        assert row["text"] == unicodedata.normalize("NFC", row["text"]).strip()


def test_fields_occur_once_per_date(rows):
    for row in rows:
        assert [row["tags"].count(f"B-{name}") for name in ("DAY", "MONTH", "YEAR")] == [1, 1, 1]
        assert row["tags"].count("B-WEEKDAY") <= 1


def test_fields_inside_tags_follow_begin_tags(rows):
    for row in rows:
        for before, tag in zip(["O", *row["tags"]], row["tags"], strict=False):
            if tag.startswith("I-"):
                assert before[2:] == tag[2:]


def test_fields_days_and_years_are_in_range(rows):
    for row in rows:
        (day,), (year,) = _field(row, "-DAY"), _field(row, "-YEAR")
        assert 1 <= int(day) <= 31
        assert len(year) == 2 or 1950 <= int(year) <= 2049


@pytest.mark.slow
def test_fields_weekdays_match_dates(all_rows):
    names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    checked = 0
    for row in all_rows:
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
def test_fields_tags_follow_the_pattern(rows, locale, pattern, tagged):
    matching = [row for row in rows if row["locale"] == locale and re.fullmatch(pattern, row["text"])]
    assert matching
    assert all(row["tags"] == tagged for row in matching)


@pytest.mark.slow
def test_fields_numeric_dates_never_start_with_month(all_rows):
    numeric = [row for row in all_rows if not re.search(r"[^\W\d]", row["text"])]
    assert len(numeric) > 2_000
    for row in numeric:
        tags = [tag for tag in row["tags"] if tag != "O"]
        assert tags in (["B-DAY", "B-MONTH", "B-YEAR"], ["B-YEAR", "B-MONTH", "B-DAY"])


def test_fields_texts_are_unique(rows):
    texts = [row["text"] for row in rows]
    assert len(texts) == len(set(texts))
