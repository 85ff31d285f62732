"""Built-in corpora from the Unicode CLDR data of babel: names by language, written dates and date fields."""

import datetime
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, List, Value

from hf_maskattn.model.remote_code import install_command

if TYPE_CHECKING:
    from babel import Locale

Choice = TypeVar("Choice")

# All of these contain day, month and year, so that a written date determines the date.
_DATE_WIDTHS = ("full", "long", "medium", "short")
_DATE_SKELETONS = ("yMd", "yMEd", "yMMMd", "yMMMEd", "yMMMMd", "yMMMMEd")

_ZERO_OF_NUMBERING_SYSTEM = {"latn": "0", "arab": "\u0660", "beng": "\u09e6", "deva": "\u0966"}

LANGUAGES = (
    "en", "de", "nl", "sv", "da", "nb", "fr", "es", "pt", "it", "ca", "ro", "pl", "cs", "sk",
    "sl", "hr", "hu", "fi", "et", "lv", "lt", "tr", "id", "sw", "cy", "ga", "eu", "is", "sq",
)  # fmt: skip
"""Languages of the corpus of names, all in Latin script, in the order of the class ids."""

DATE_LOCALES = (
    "en", "de", "fr", "es", "it", "pl", "hu", "tr", "vi", "ru", "el",
    "hy", "ka", "he", "ar_EG", "mr", "bn", "th", "zh", "ja", "ko",
)  # fmt: skip
"""CLDR locales of the corpus of dates; the language precedes the `_`."""

FIELD_LOCALES = (
    "en", "de", "nl", "sv", "da", "nb", "fi", "fr", "es", "it",
    "pt", "ro", "pl", "cs", "ru", "uk", "el", "tr", "hu", "id", "vi",
)  # fmt: skip
"""CLDR locales of the corpus of date fields."""

FIELD_TAGS = ("O", *(f"{prefix}-{field}" for field in ("WEEKDAY", "DAY", "MONTH", "YEAR") for prefix in "BI"))
"""Tags of the corpus of date fields, in the order of the class ids."""

DATE_SPLIT_SIZES = {"train": 40_000, "validation": 2_000, "test": 5_000}
FIELD_SPLIT_SIZES = {"train": 20_000, "validation": 2_000, "test": 2_000}

_FIELD_TYPES = {"E": "WEEKDAY", "c": "WEEKDAY", "d": "DAY", "M": "MONTH", "L": "MONTH", "y": "YEAR"}
_WORD = re.compile(r"\w+|[^\w\s]")


def _describe(description: str, features: dict[str, Any]) -> DatasetInfo:
    return DatasetInfo(
        description=description, homepage="https://cldr.unicode.org", license="Unicode-3.0", features=Features(features)
    )


_LANGUAGES_INFO = _describe(
    "Names of territories, languages, currencies and scripts in 30 languages (text -> language).",
    {"text": Value("string"), "label": ClassLabel(names=list(LANGUAGES))},
)
_DATES_INFO = _describe(
    "Dates from 1900 to 2099 as 21 languages write them, and the same dates in ISO 8601.",
    {"source": Value("string"), "target": Value("string"), "language": Value("string")},
)
_FIELDS_INFO = _describe(
    "Dates from 1950 to 2049 as 21 locales write them; words and numbers tagged as date fields.",
    {
        "text": Value("string"),
        "tokens": List(Value("string")),
        "tags": List(ClassLabel(names=list(FIELD_TAGS))),
        "locale": Value("string"),
    },
)


def build_cldr_languages() -> DatasetDict:
    """Build a corpus for text classification: names of territories, languages, currencies and scripts in 30 languages.

    Names that occur in several languages are excluded. The split of a name is determined by its SHA-256, independently of the
    other names; rows are sorted by these hashes. With babel 2.18 there are 24,645 rows; the largest class has 4.6 % of them.

    Returns:
        Splits `train`, `validation` and `test` (80, 10 and 10 percent) with the columns `text` (NFC) and `label`.

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, https://cldr.unicode.org (license Unicode-3.0)
    """
    languages_of: dict[str, set[str]] = {}
    for language in LANGUAGES:
        for code, name in display_names(language):
            text = unicodedata.normalize("NFC", name).strip()
            # CLDR contains the bare code if there is no name, which is independent of the language.
            if text != code and any(character.isalpha() for character in text):
                languages_of.setdefault(text, set()).add(language)
    language_of = {text: languages.pop() for text, languages in languages_of.items() if len(languages) == 1}
    splits = DatasetDict()
    for split, texts in split_by_hash(language_of).items():
        columns = {"text": texts, "label": [LANGUAGES.index(language_of[text]) for text in texts]}
        splits[split] = Dataset.from_dict(columns, info=_LANGUAGES_INFO)
    return splits


def build_cldr_dates() -> DatasetDict:
    """Build a corpus for text-to-text models: 47,000 different dates as one of 21 languages writes them, and in ISO 8601.

    A written date determines the date, whatever its language: two-digit years, and numeric dates with the month first (English
    `M/d/y`), are excluded. All dates are Gregorian, also the Thai ones. Arabic, Marathi and Bengali have their own digits.
    Language and pattern are determined by the SHA-256 of the ISO date; no date occurs in two splits.

    Returns:
        Splits `train` (40,000 rows), `validation` (2,000) and `test` (5,000) with the columns `source` (the written date,
        NFC, 8 to 38 characters with babel 2.18), `target` (such as `"2026-03-01"`) and `language` (such as `"de"`).

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, https://cldr.unicode.org (license Unicode-3.0)
    """
    patterns_of = {locale: unambiguous_patterns(locale) for locale in DATE_LOCALES}
    dates = shuffle_dates(datetime.date(1900, 1, 1), datetime.date(2099, 12, 31))
    return _build_splits(dates, DATE_SPLIT_SIZES, lambda date: _build_date_row(date, patterns_of), _DATES_INFO)


def build_cldr_date_fields() -> DatasetDict:
    """Build a corpus for token classification: 24,000 different dates, each in one of 21 locales.

    Tags follow from the fields of the CLDR pattern. Literals of a pattern (Spanish "de", Russian "г.", punctuation between
    fields) are `O`; the period of an abbreviated month is `I-MONTH`. Locale and pattern are determined by the SHA-256 of the
    ISO date; no date occurs in two splits.

    Returns:
        Splits `train` (20,000 rows), `validation` (2,000) and `test` (2,000) with the columns `text` (NFC), `tokens`
        (words, numbers and punctuation marks in the order of the text), `tags` and `locale`.

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, https://cldr.unicode.org (license Unicode-3.0)
    """
    patterns_of = {
        locale: [pattern for pattern in date_patterns(locale) if not is_month_first(pattern)] for locale in FIELD_LOCALES
    }
    dates = shuffle_dates(datetime.date(1950, 1, 1), datetime.date(2049, 12, 31))
    return _build_splits(dates, FIELD_SPLIT_SIZES, lambda date: _build_tagged_row(date, patterns_of), _FIELDS_INFO)


def _digest(date: datetime.date) -> bytes:
    return hashlib.sha256(date.isoformat().encode()).digest()


def choose_by_hash(date: datetime.date, choices: Sequence[Choice], index: int) -> Choice:
    """Choose one of several items for a date. The choices with index 0 and 1 are independent."""
    # Dates are sorted by the first bytes of the digest, so choices use the last ones.
    end = hashlib.sha256().digest_size - 8 * index
    return choices[int.from_bytes(_digest(date)[end - 8 : end]) % len(choices)]


def shuffle_dates(first: datetime.date, last: datetime.date) -> list[datetime.date]:
    """Shuffle all dates from the first to the last one, included, by the SHA-256 of the ISO date."""
    dates = [first + datetime.timedelta(days=day) for day in range((last - first).days + 1)]
    return sorted(dates, key=_digest)


def split_by_hash(texts: Iterable[str]) -> dict[str, list[str]]:
    """Assign each of several unique texts to a split by its SHA-256.

    Returns:
        The texts of `"train"`, `"validation"` and `"test"` (about 80, 10 and 10 percent), sorted by their hashes.
    """
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number, text in sorted((int(hashlib.sha256(text.encode()).hexdigest(), 16), text) for text in texts):
        splits[{8: "validation", 9: "test"}.get(number % 10, "train")].append(text)
    return splits


def _build_splits(
    dates: list[datetime.date], sizes: dict[str, int], build_row: Callable[[datetime.date], dict[str, Any]], info: DatasetInfo
) -> DatasetDict:
    splits = DatasetDict()
    start = 0
    for name, size in sizes.items():
        rows = [build_row(date) for date in dates[start : start + size]]
        splits[name] = Dataset.from_list(rows, info=info, features=info.features)
        start += size
    return splits


def _build_date_row(date: datetime.date, patterns_of: dict[str, list[str]]) -> dict[str, str]:
    locale = choose_by_hash(date, DATE_LOCALES, 0)
    pattern = choose_by_hash(date, patterns_of[locale], 1)
    return {"source": format_date(pattern, date, locale), "target": date.isoformat(), "language": locale.split("_")[0]}


def _build_tagged_row(date: datetime.date, patterns_of: dict[str, list[str]]) -> dict[str, Any]:
    locale = choose_by_hash(date, FIELD_LOCALES, 0)
    pattern = choose_by_hash(date, patterns_of[locale], 1)
    text, tokens, tags = "", [], []
    for is_field, value in split_pattern(pattern):
        piece = unicodedata.normalize("NFC", format_field(value, date, locale) if is_field else value)
        words = _WORD.findall(piece)
        text += piece
        tokens += words
        if is_field:
            field_type = _FIELD_TYPES[value[0]]
            tags += [f"B-{field_type}"] + [f"I-{field_type}"] * (len(words) - 1)
        else:
            tags += ["O"] * len(words)
    return {"text": text, "tokens": tokens, "tags": tags, "locale": locale}


def display_names(locale: str) -> list[tuple[str, str]]:
    """Read the names of territories, languages, currencies and scripts in a CLDR locale, such as `"de"`.

    Returns:
        Pairs of a code and its name, such as `("ZW", "Simbabwe")`, in the order of CLDR.

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, Locale Display Names, https://www.unicode.org/reports/tr35/tr35-general.html
    """
    data = _load_locale(locale)
    return [
        (code, name)
        for names in (data.territories, data.languages, data.currencies, data.scripts)
        for code, name in names.items()
    ]


def date_patterns(locale: str) -> list[str]:
    """Read the patterns of complete dates of a CLDR locale, such as `"de"`.

    Returns:
        Unique date patterns, such as `"d. MMMM y"`: the four standard widths, then the available skeletons (with and without
        weekday).

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, Dates, https://www.unicode.org/reports/tr35/tr35-dates.html
    """
    data = _load_locale(locale)
    patterns = [data.date_formats[width].pattern for width in _DATE_WIDTHS]
    patterns += [data.datetime_skeletons[name].pattern for name in _DATE_SKELETONS if name in data.datetime_skeletons]
    return list(dict.fromkeys(patterns))


def unambiguous_patterns(locale: str) -> list[str]:
    """Read the date patterns of a locale that determine day, month and century; see `date_patterns`."""
    patterns = [pattern for pattern in date_patterns(locale) if not is_month_first(pattern)]
    return [pattern for pattern in patterns if (True, "yy") not in split_pattern(pattern)]


def is_month_first(pattern: str) -> bool:
    """Return whether a pattern is numeric with month, day and year in this order, such as `"M/d/y"`.

    Other locales write other dates with the same numbers.
    """
    fields = [value for is_field, value in split_pattern(pattern) if is_field]
    is_numeric = all(field[0] in "yd" or (field[0] in "ML" and len(field) <= 2) for field in fields)
    return is_numeric and "".join(field[0] for field in fields).replace("L", "M") == "Mdy"


@cache
def split_pattern(pattern: str) -> tuple[tuple[bool, str], ...]:
    """Split a date pattern, such as `"d. MMMM y"`, into fields and literals.

    Returns:
        Pairs of whether the piece is a field, and its letters (`"MMMM"`) or literal text (`". "`), in order. A literal may be
        split into several pieces.
    """
    from babel.dates import tokenize_pattern

    pieces = []
    for kind, value in tokenize_pattern(pattern):
        # A literal is a string, a field is a pair of its letter and its width.
        pieces.append((True, value[0] * int(value[1])) if kind == "field" else (False, str(value)))
    return tuple(pieces)


def format_date(pattern: str, date: datetime.date, locale: str) -> str:
    """Format a date by a pattern of a locale, such as `"d. MMMM y"`, in Unicode NFC."""
    pieces = (format_field(value, date, locale) if is_field else value for is_field, value in split_pattern(pattern))
    return unicodedata.normalize("NFC", "".join(pieces))


def format_field(field: str, date: datetime.date, locale: str) -> str:
    """Format one field of a Gregorian date, such as `"MMMM"`, in the digits of a locale; babel itself has Latin digits only.

    Raises:
        ValueError: The digits of the locale are not supported.

    Source:
        Unicode CLDR, Numbers, https://www.unicode.org/reports/tr35/tr35-numbers.html
    """
    from babel.dates import DateTimeFormat

    return DateTimeFormat(date, _load_locale(locale))[field].translate(_digits(locale))


@cache
def _digits(locale: str) -> dict[int, str]:
    system = _load_locale(locale).default_numbering_system
    if system not in _ZERO_OF_NUMBERING_SYSTEM:
        raise ValueError(
            f"the numbering system of locale={locale!r} must be one of {', '.join(_ZERO_OF_NUMBERING_SYSTEM)}, got {system!r}."
        )
    return {ord("0") + digit: chr(ord(_ZERO_OF_NUMBERING_SYSTEM[system]) + digit) for digit in range(10)}


@cache
def _load_locale(locale: str) -> "Locale":
    try:
        from babel import Locale
    except ImportError as error:
        raise ImportError(f"Built-in corpora require babel, which is not installed: {install_command('examples')}") from error
    return Locale.parse(locale)
