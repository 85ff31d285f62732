import dataclasses

import pytest

from hf_maskattn.recipes.arguments import DataArguments, ModelArguments, OwnTrainingArguments, TuningArguments
from hf_maskattn.recipes.fields import settable_fields
from tests.recipes_reference import PAGE, attribute_docstrings, is_current


def test_recipes_page_is_up_to_date():
    assert is_current(PAGE.read_text(encoding="utf-8")), "run python -m tests.recipes_reference"


@pytest.mark.parametrize("group", ["model", "data", "training", "tuning"])
def test_recipes_page_lists_every_key(group):
    text = PAGE.read_text(encoding="utf-8")
    assert [key for key in settable_fields(group) if f"| `{key}` |" not in text] == []


@pytest.mark.parametrize("dataclass_type", [ModelArguments, DataArguments, OwnTrainingArguments, TuningArguments])
def test_every_field_has_a_docstring(dataclass_type):
    assert list(attribute_docstrings(dataclass_type)) == [item.name for item in dataclasses.fields(dataclass_type)]
