"""Readers of the Unicode CLDR data that ships with babel; the only file that imports babel."""

import datetime
import hashlib
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, Value

from hf_maskattn.model.remote_code import install_command

if TYPE_CHECKING:
    from babel import Locale

# Every one of these names a day, a month and a year: a written date then belongs to exactly one date.
_DATE_WIDTHS = ("full", "long", "medium", "short")
_DATE_SKELETONS = ("yMd", "yMEd", "yMMMd", "yMMMEd", "yMMMMd", "yMMMMEd")

# Zeros of the decimal digits that CLDR calls by these names; babel writes dates in Latin digits whatever the locale.
_ZERO_OF = {"latn": "0", "arab": "\u0660", "beng": "\u09e6", "deva": "\u0966"}


def _load_locale(locale: str) -> "Locale":
    try:
        from babel import Locale
    except ImportError as error:
        raise ImportError(f"the built-in corpora need babel: {install_command('examples')}") from error
    return Locale.parse(locale)


def display_names(locale: str) -> list[tuple[str, str]]:
    """Read what a language calls the territories, languages, currencies and scripts of the world.

    Args:
        locale: CLDR locale, such as `"de"`.

    Returns:
        Pairs of a code and its name, such as `("ZW", "Simbabwe")`, in CLDR's own order.

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
    """Read the different ways in which a locale writes a complete date.

    Args:
        locale: CLDR locale, such as `"de"`.

    Returns:
        Date patterns without repetition, such as `"d. MMMM y"`: the four standard widths, then the skeletons
        (with and without weekday) that the locale has.

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, Dates, https://www.unicode.org/reports/tr35/tr35-dates.html
    """
    data = _load_locale(locale)
    patterns = [data.date_formats[width].pattern for width in _DATE_WIDTHS]
    patterns += [data.datetime_skeletons[name].pattern for name in _DATE_SKELETONS if name in data.datetime_skeletons]
    return list(dict.fromkeys(patterns))


def split_pattern(pattern: str) -> list[tuple[bool, str]]:
    """Take a date pattern apart.

    Args:
        pattern: CLDR date pattern, such as `"d. MMMM y"`.

    Returns:
        Pairs of "is it a field?" and its letters (`"MMMM"`) or literal text (`". "`), in written order; a
        literal may come in several pieces.
    """
    from babel.dates import tokenize_pattern

    parts = []
    for kind, value in tokenize_pattern(pattern):
        # Literal text is a string, a field is a pair of its letter and its width.
        parts.append((True, value[0] * int(value[1])) if kind == "field" else (False, str(value)))
    return parts


def has_month_first_numbers(pattern: str) -> bool:
    """Tell whether a date pattern is all numbers with the month before the day and the year last, such as `"M/d/y"`.

    The same text with its day first belongs to another date elsewhere.

    Args:
        pattern: CLDR date pattern.

    Returns:
        Whether it is.
    """
    fields = [value for is_field, value in split_pattern(pattern) if is_field]
    only_numbers = all(field[0] in "yd" or (field[0] in "ML" and len(field) <= 2) for field in fields)
    return only_numbers and "".join(field[0] for field in fields).replace("L", "M") == "Mdy"


def write_field(field: str, date: datetime.date, locale: str) -> str:
    """Write one field of a date in a locale's words or numbers.

    Args:
        field: Letters of a CLDR pattern field, such as `"MMMM"`.
        date: The date, of the Gregorian calendar in every locale.
        locale: CLDR locale, such as `"de"`.

    Returns:
        The written field, such as `"Januar"`, in the digits of the locale.

    Raises:
        ValueError: The locale has digits that this package does not know.

    Source:
        Unicode CLDR, Numbers, https://www.unicode.org/reports/tr35/tr35-numbers.html
    """
    from babel.dates import DateTimeFormat

    return DateTimeFormat(date, locale)[field].translate(_digits(locale))


@cache
def _digits(locale: str) -> dict[int, str]:
    system = _load_locale(locale).default_numbering_system
    if system not in _ZERO_OF:
        raise ValueError(f"locale={locale!r} writes numbers in {system!r}; known are {', '.join(_ZERO_OF)}")
    return {ord("0") + digit: chr(ord(_ZERO_OF[system]) + digit) for digit in range(10)}


def hashed_splits(texts: Iterable[str]) -> dict[str, list[str]]:
    """Put each text into a split by its SHA-256.

    Args:
        texts: The texts, each of them once.

    Returns:
        The texts of `"train"`, `"validation"` and `"test"` (about 80, 10 and 10 percent), in the order of their hashes.
    """
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number, text in sorted((int(hashlib.sha256(text.encode()).hexdigest(), 16), text) for text in texts):
        splits[{8: "validation", 9: "test"}.get(number % 10, "train")].append(text)
    return splits


LANGUAGES = (
    "en", "de", "nl", "sv", "da", "nb", "fr", "es", "pt", "it", "ca", "ro", "pl", "cs", "sk",
    "sl", "hr", "hu", "fi", "et", "lv", "lt", "tr", "id", "sw", "cy", "ga", "eu", "is", "sq",
)  # fmt: skip
"""The languages, all written in Latin letters, in the order of the class numbers."""

_FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=list(LANGUAGES))})
_INFO = DatasetInfo(
    description="Names of territories, languages, currencies and scripts in 30 languages (text -> language).",
    homepage="https://cldr.unicode.org",
    license="Unicode-3.0",
    features=_FEATURES,
)


def build_cldr_languages() -> DatasetDict:
    """Build the corpus: names of territories, languages, currencies and scripts in 30 languages.

    A text that occurs in more than one of the languages is left out. Each text is put into a split by its own
    SHA-256, so that it stays there whatever else the corpus holds; rows are in the order of these hashes.
    With babel 2.18 there are 24,645 rows and the largest class holds 4.6 % of them.

    Returns:
        Splits `train`, `validation` and `test` (80, 10 and 10 percent), columns `text` (NFC) and `label`.

    Raises:
        ImportError: babel is not installed.

    Source:
        Unicode CLDR, https://cldr.unicode.org (license Unicode-3.0)
    """
    languages_of: dict[str, set[str]] = {}
    for language in LANGUAGES:
        for code, name in display_names(language):
            text = unicodedata.normalize("NFC", name).strip()
            # CLDR puts the bare code where it has no name; such a text tells nothing about a language.
            if text != code and any(character.isalpha() for character in text):
                languages_of.setdefault(text, set()).add(language)

    language_of = {text: languages.pop() for text, languages in languages_of.items() if len(languages) == 1}
    return DatasetDict({name: _to_dataset(texts, language_of) for name, texts in hashed_splits(language_of).items()})


def _to_dataset(texts: list[str], language_of: dict[str, str]) -> Dataset:
    columns = {"text": texts, "label": [LANGUAGES.index(language_of[text]) for text in texts]}
    return Dataset.from_dict(columns, info=_INFO)
