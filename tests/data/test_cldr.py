import builtins
import datetime

import pytest

from hf_maskattn.data.cldr import date_patterns, display_names, has_month_first_numbers, split_pattern, write_field
from hf_maskattn.data.cldr_date_fields import build_cldr_date_fields
from hf_maskattn.data.cldr_dates import build_cldr_dates
from hf_maskattn.data.cldr_languages import build_cldr_languages


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
