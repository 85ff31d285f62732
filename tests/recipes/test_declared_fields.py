import dataclasses
import typing

import pytest
from transformers import PreTrainedConfig, Seq2SeqTrainingArguments, TrainingArguments

from hf_maskattn import MaskAttnConfig, RNNSearchConfig
from hf_maskattn.recipes.arguments import TASKS, arguments_class, config_class, describe, settable_fields
from hf_maskattn.recipes.declared_fields import declared_fields


def described(fields):
    return {name: describe(annotation) for name, annotation in fields.items()}


def types_of(dataclass_type):
    return {item.name: item.type for item in dataclasses.fields(dataclass_type)}


@pytest.mark.parametrize("task", TASKS)
def test_training_fields_are_those_of_the_class(task):
    real = types_of(arguments_class(task))
    read = settable_fields("training", [task])
    assert set(read) <= set(real)
    assert described(read) == described({name: real[name] for name in read})


def test_no_field_of_a_class_is_missed():
    assert set(declared_fields("transformers.training_args", "TrainingArguments")) == set(types_of(TrainingArguments))
    own = declared_fields("transformers.training_args_seq2seq", "Seq2SeqTrainingArguments")
    assert set(own) == set(types_of(Seq2SeqTrainingArguments)) - set(types_of(TrainingArguments))
    assert set(declared_fields("transformers.configuration_utils", "PreTrainedConfig")) == set(types_of(PreTrainedConfig))


@pytest.mark.parametrize("config", [MaskAttnConfig, RNNSearchConfig])
def test_fields_of_a_configuration_are_those_of_the_class(config):
    read = declared_fields(config.__module__, config.__name__)
    real = types_of(config)
    assert set(real) == set(read) | set(types_of(PreTrainedConfig))
    assert described(read) == described({name: real[name] for name in read})
    task = next(task for task in TASKS if config_class(task) is config)
    assert set(settable_fields("model", [task])) - set(settable_fields("model", [])) <= set(read) - set(
        types_of(PreTrainedConfig)
    )


def test_kinds_of_annotations(tmp_path, monkeypatch):
    """What an annotation may name: builtins, typing, an enum here or in a sibling, other classes, and what is not known."""
    (tmp_path / "toy_package").mkdir()
    (tmp_path / "toy_package" / "__init__.py").write_text("raise ImportError('is not imported')")
    (tmp_path / "toy_package" / "enums.py").write_text('class Far(ExplicitEnum):\n    NO = "no"\n    YES = "yes"\n')
    (tmp_path / "toy_package" / "fields.py").write_text(
        "import torch\nfrom elsewhere import Thing\nfrom .enums import Far\n"
        'class Near(str, Enum):\n    """Words."""\n    A = "a"\n'
        "class Fields:\n"
        "    a: int = 3\n    b: Literal['x'] | None = None\n    c: Near | str = 'a'\n    d: Far = 'no'\n"
        "    e: Optional[Thing] = None\n"
        "    f: torch.dtype = None\n    g: ClassVar[int] = 3\n    h = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fields = declared_fields("toy_package.fields", "Fields")
    assert list(fields) == ["a", "b", "c", "d", "e", "f"]
    assert describe(fields["b"]) == "one of 'x' or null"
    assert describe(fields["c"]) == "one of 'a'"
    assert describe(fields["d"]) == "one of 'no', 'yes'"
    assert describe(fields["e"]) == "Thing or null"
    assert fields["f"] is typing.Any
