"""Built-in corpus for text-to-text models: a written date in one of 21 languages, and the same date in ISO 8601."""

import datetime
import unicodedata

from datasets import Dataset, DatasetDict, DatasetInfo, Features, Value

from hf_maskattn.data.cldr import date_patterns, has_month_first_numbers, split_pattern, write_field
from hf_maskattn.data.date_drawing import DrawnDate, draw_dates

LOCALES = (
    "en", "de", "fr", "es", "it", "pl", "hu", "tr", "vi", "ru", "el",
    "hy", "ka", "he", "ar_EG", "mr", "bn", "th", "zh", "ja", "ko",
)  # fmt: skip
"""The CLDR locales that dates are written in; the language is what stands before the `_`."""

_FIRST_DATE, _LAST_DATE = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
_SPLIT_SIZES = {"train": 40_000, "validation": 2_000, "test": 5_000}
_FEATURES = Features({"source": Value("string"), "target": Value("string"), "language": Value("string")})
_INFO = DatasetInfo(
    description="Dates from 1900 to 2099 as 21 languages write them, and the same dates in ISO 8601.",
    homepage="https://cldr.unicode.org",
    license="Unicode-3.0",
    features=_FEATURES,
)


def build_cldr_dates() -> DatasetDict:
    """Build the corpus: 47,000 different dates, each written once, in a language and a pattern of that language.

    A text belongs to exactly one date, whichever language it is in. Left out for that: two-digit years, and numbers
    alone with the month first (English `M/d/y`), so that numbers alone are a year, month and day, or a day, month
    and year. All dates are of the Gregorian calendar, the Thai ones too. Arabic, Marathi and Bengali use digits of
    their own. Languages and patterns are drawn by SHA-256 of the ISO date; no date is in two splits.

    Returns:
        Splits `train` (40,000 rows), `validation` (2,000) and `test` (5,000), columns `source` (the written date,
        NFC, 8 to 38 characters with babel 2.18), `target` (such as `"2026-03-01"`) and `language` (such as `"de"`).

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, https://cldr.unicode.org (license Unicode-3.0)
    """
    patterns_of = {locale: clear_patterns(locale) for locale in LOCALES}
    drawn = draw_dates(_FIRST_DATE, _LAST_DATE)
    splits = DatasetDict()
    start = 0
    for name, size in _SPLIT_SIZES.items():
        rows = [_write_row(date, patterns_of) for date in drawn[start : start + size]]
        splits[name] = Dataset.from_list(rows, info=_INFO, features=_FEATURES)
        start += size
    return splits


def clear_patterns(locale: str) -> list[str]:
    """Read the ways in which a locale writes a date so that the text alone tells day, month and century.

    Args:
        locale: CLDR locale, such as `"de"`.

    Returns:
        Date patterns without repetition.

    Raises:
        ImportError: babel is not installed.
    """
    return [pattern for pattern in date_patterns(locale) if not (_has_short_year(pattern) or has_month_first_numbers(pattern))]


def write_date(pattern: str, date: datetime.date, locale: str) -> str:
    """Write a date by a pattern of its locale.

    Args:
        pattern: CLDR date pattern, such as `"d. MMMM y"`.
        date: The date.
        locale: CLDR locale, such as `"de"`.

    Returns:
        The written date, in Unicode NFC.
    """
    parts = (write_field(value, date, locale) if is_field else value for is_field, value in split_pattern(pattern))
    return unicodedata.normalize("NFC", "".join(parts))


def _has_short_year(pattern: str) -> bool:
    return any(is_field and value == "yy" for is_field, value in split_pattern(pattern))


def _write_row(drawn: DrawnDate, patterns_of: dict[str, list[str]]) -> dict[str, str]:
    locale = drawn.draw(LOCALES, 0)
    pattern = drawn.draw(patterns_of[locale], 1)
    return {
        "source": write_date(pattern, drawn.date, locale),
        "target": drawn.date.isoformat(),
        "language": locale.split("_")[0],
    }
