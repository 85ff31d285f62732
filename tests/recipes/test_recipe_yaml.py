import math

import pytest

from hf_maskattn.recipes.recipe import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("0x10", "0x10"),
        ("[1, a]", [1, "a"]),
        (".inf", math.inf),
        ("'2e-5'", "2e-5"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  b: 1\n  b: 2\n", r"^here, line 3: the key 'b' is given twice\.$"),
        ("a: 1\n b: [\n", "^here, line 2: "),
        ("1: a", r"^here, line 1: a key must be a string, got 1\.$"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_invalid_yaml_raises_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text, "here")
