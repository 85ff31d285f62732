"""Built-in corpus for token classification: written dates of 21 locales, with the meaning of every word and number."""

import datetime
import re
import unicodedata

from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, List, Value

from hf_maskattn.data.cldr import date_patterns, has_month_first_numbers, split_pattern, write_field
from hf_maskattn.data.date_drawing import DrawnDate, draw_dates

LOCALES = (
    "en", "de", "nl", "sv", "da", "nb", "fi", "fr", "es", "it",
    "pt", "ro", "pl", "cs", "ru", "uk", "el", "tr", "hu", "id", "vi",
)  # fmt: skip
"""The locales that dates are written in."""

TAGS = ("O", *(f"{prefix}-{field}" for field in ("WEEKDAY", "DAY", "MONTH", "YEAR") for prefix in "BI"))
"""The tags, in the order of the class numbers."""

_FIRST_DATE, _LAST_DATE = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
_SPLIT_SIZES = {"train": 20_000, "validation": 2_000, "test": 2_000}
_FIELD_NAMES = {"E": "WEEKDAY", "c": "WEEKDAY", "d": "DAY", "M": "MONTH", "L": "MONTH", "y": "YEAR"}
_TOKEN = re.compile(r"\w+|[^\w\s]")
_FEATURES = Features(
    {
        "text": Value("string"),
        "tokens": List(Value("string")),
        "tags": List(ClassLabel(names=list(TAGS))),
        "locale": Value("string"),
    }
)
_INFO = DatasetInfo(
    description="Dates from 1950 to 2049 as 21 locales write them; words and numbers tagged as date fields.",
    homepage="https://cldr.unicode.org",
    license="Unicode-3.0",
    features=_FEATURES,
)


def build_cldr_date_fields() -> DatasetDict:
    """Build the corpus: 24,000 different dates, each written once, in a locale and a pattern of that locale.

    Tags are known by construction: each field of the CLDR pattern is written on its own. Literals of a pattern
    (Spanish "de", Russian "г.", punctuation between fields) are `O`; a point that belongs to an abbreviated
    month is `I-MONTH`. Dates, locales and patterns are drawn by SHA-256 of the ISO date; no date is in two splits.

    Returns:
        Splits `train` (20,000 rows), `validation` (2,000) and `test` (2,000), columns `text` (NFC), `tokens`
        (words, numbers and punctuation marks in the order of the text), `tags` and `locale`.

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, https://cldr.unicode.org (license Unicode-3.0)
    """
    patterns_of = {
        locale: [pattern for pattern in date_patterns(locale) if not has_month_first_numbers(pattern)] for locale in LOCALES
    }
    drawn = draw_dates(_FIRST_DATE, _LAST_DATE)

    splits = DatasetDict()
    start = 0
    for name, size in _SPLIT_SIZES.items():
        rows = [_write_row(date, patterns_of) for date in drawn[start : start + size]]
        splits[name] = Dataset.from_list(rows, info=_INFO, features=_FEATURES)
        start += size
    return splits


def _write_row(drawn: DrawnDate, patterns_of: dict[str, list[str]]) -> dict[str, object]:
    locale = drawn.draw(LOCALES, 0)
    pattern = drawn.draw(patterns_of[locale], 1)

    text, tokens, tags = "", [], []
    for is_field, value in split_pattern(pattern):
        written = unicodedata.normalize("NFC", write_field(value, drawn.date, locale) if is_field else value)
        words = _TOKEN.findall(written)
        text += written
        tokens += words
        if is_field:
            name = _FIELD_NAMES[value[0]]
            tags += [f"B-{name}"] + [f"I-{name}"] * (len(words) - 1)
        else:
            tags += ["O"] * len(words)
    return {"text": text, "tokens": tokens, "tags": tags, "locale": locale}
