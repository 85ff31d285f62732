import dataclasses
import typing

import pytest
from transformers import PreTrainedConfig, Seq2SeqTrainingArguments, TrainingArguments

from hf_maskattn import MaskAttnConfig, RNNSearchConfig
from hf_maskattn.recipes.arguments import OWN_TRAINING_KEYS, OwnTrainingArguments
from hf_maskattn.recipes.fields import check_key, declared_fields, describe_type, nearest_keys, settable_fields
from hf_maskattn.tasks import TASKS

MISSPELLED = {
    "training": {
        "learning_rate": ["lerning_rate", "learning-rate", "learningrate", "lr"],
        "num_train_epochs": ["epochs", "num_epochs", "max_epochs"],
        "per_device_train_batch_size": ["train_batch_size", "per_gpu_train_batch_size", "batch_size"],
        "eval_strategy": ["evaluation_strategy"],
        "eval_steps": ["eval_step"],
        "output_dir": ["out_dir"],
        "optim": ["optimizer"],
        "lr_scheduler_type": ["lr_scheduler"],
        "use_cpu": ["no_cuda"],
        "train_sampling_strategy": ["group_by_length"],
        "bf16": ["BF16"],
        "label_smoothing_factor": ["label_smoothing"],
        "generation_num_beams": ["num_beams"],
        "seed": ["sed", "random_seed"],
        "early_stopping_patience": ["early_stopping", "patience", "early_stoping_patience"],
        "max_grad_norm": ["gradient_clipping", "gradient_clip_val"],
        "gradient_accumulation_steps": ["accumulate_grad_batches"],
        "weight_decay": ["wd"],
        "metric_for_best_model": ["monitor"],
        "logging_steps": ["logging_step"],
    },
    "model": {
        "hidden_size": ["hiden_size", "hidden", "hidden_dim"],
        "embedding_size": ["embedding_dim"],
        "num_hidden_layers": ["num_layers", "n_layers"],
        "num_attention_heads": ["num_heads"],
        "rnn_type": ["rnn", "cell_type"],
        "attention_implementation": ["attn_implementation"],
        "pretrained": ["pretrained_model", "model_name"],
        "hidden_dropout_prob": ["hidden_dropout"],
        "classifier_dropout": ["dropout"],
        "freeze_embeddings": ["freeze_embedding"],
    },
    "data": {
        "validation_file": ["valid_file", "dev_file"],
        "train_file": ["train"],
        "text_column": ["text_col"],
        "label_column": ["lable_column"],
        "lowercase": ["lower_case"],
        "max_length": ["max_len", "max_seq_length"],
        "vocab_size": ["vocab"],
        "streaming": ["stream"],
        "source": ["dataset", "path"],
        "csv_separator": ["sep"],
        "metric": ["metrics"],
        "tokenizer": ["tokenizers"],
    },
}
"""Keys that users write for a key, by group."""
FAR = {
    "training": [
        *("momentum", "precision", "device", "logging_dir", "callbacks", "checkpoint_every", "overwrite_output_dir"),
        *("tokenizer", "dropout", "hidden_size", "curriculum", "distributed_backend", "stopping_criterion"),
    ],
    "model": ["activation", "name", "max_length", "optimizer", "patience"],
    "data": ["zzz", "seed", "batch_size", "language", "class_weights", "early_stopping_patience"],
    "teacher": ["name", "path", "weight"],
}


@pytest.mark.parametrize(
    ("group", "key", "meant"),
    [(group, key, meant) for group, keys in MISSPELLED.items() for meant in keys for key in keys[meant]],
)
def test_nearest_keys_suggests_the_intended_key_first(group, key, meant):
    assert nearest_keys(key, settable_fields(group))[0] == meant


@pytest.mark.parametrize(("group", "key"), [(group, key) for group in FAR for key in FAR[group]])
def test_nearest_keys_has_no_suggestion_with_another_meaning(group, key):
    assert nearest_keys(key, settable_fields(group)) == []


@pytest.mark.parametrize(
    ("key", "meant"),
    {
        "data.batch_size": "training.per_device_train_batch_size",
        "data.early_stopping_patience": "training.early_stopping_patience",
        "data.seed": "training.seed",
        "model.lr": "training.learning_rate",
        "model.learning_rate": "training.learning_rate",
        "model.max_length": "data.max_length",
        "training.tokenizer": "data.tokenizer",
        "training.hidden_dim": "model.hidden_size",
        "teacher.learning_rate": "training.learning_rate",
    }.items(),
)
def test_check_key_suggests_the_key_of_another_group(key, meant):
    group, name = key.split(".")
    with pytest.raises(ValueError, match=rf"^{key} does not exist\. Did you mean {meant}\?$"):
        check_key(group, name, settable_fields(group))


def test_check_key_suggests_several_keys():
    message = r"^data\.train does not exist\. Did you mean data\.train_file or data\.train_split\?$"
    with pytest.raises(ValueError, match=message):
        check_key("data", "train", settable_fields("data"))


def test_check_key_lists_a_few_keys_only():
    with pytest.raises(ValueError, match=r"^model\.zzz does not exist\. Use one of attention_dropout_prob, vocab\.$"):
        check_key("model", "zzz", ["vocab", "attention_dropout_prob"])
    with pytest.raises(ValueError, match=r"does not exist\. Use a field of transformers\.TrainingArguments\.$"):
        check_key("training", "zzz", settable_fields("training"))


def described(fields):
    return {name: describe_type(annotation) for name, annotation in fields.items()}


def types_of(dataclass_type):
    return {item.name: item.type for item in dataclasses.fields(dataclass_type)}


@pytest.mark.parametrize("task", TASKS)
def test_settable_training_fields_match_the_class(task):
    real = types_of(Seq2SeqTrainingArguments if TASKS[task].generates else TrainingArguments)
    read = settable_fields("training", [task])
    assert read.pop("warmup_ratio") is float
    own = [read.pop(name) for name in OWN_TRAINING_KEYS]
    assert own == [item.type for item in dataclasses.fields(OwnTrainingArguments)]
    assert set(read) <= set(real)
    assert described(read) == described({name: real[name] for name in read})


def test_settable_training_fields_exclude_those_of_the_command():
    left_out = set(types_of(TrainingArguments)) - set(settable_fields("training"))
    of_the_command = {"resume_from_checkpoint", "do_train", "do_eval", "do_predict", "local_rank"}
    assert left_out == {"hub_token", "hub_always_push", *of_the_command}


def test_settable_model_fields_exclude_those_of_the_data():
    settable = settable_fields("model")
    own = set(types_of(MaskAttnConfig)) - {"vocab_size", "pad_token_id"}
    assert {"rnn_type", "attention_query", "tie_word_embeddings"} <= set(settable) & own
    assert not {"vocab_size", "pad_token_id", "num_labels", "architectures"} & set(settable)


def test_declared_fields_are_complete():
    assert set(declared_fields("transformers.training_args", "TrainingArguments")) == set(types_of(TrainingArguments))
    own = declared_fields("transformers.training_args_seq2seq", "Seq2SeqTrainingArguments")
    assert set(own) == set(types_of(Seq2SeqTrainingArguments)) - set(types_of(TrainingArguments))
    assert set(declared_fields("transformers.configuration_utils", "PreTrainedConfig")) == set(types_of(PreTrainedConfig))


@pytest.mark.parametrize("config", [MaskAttnConfig, RNNSearchConfig])
def test_declared_config_fields_match_the_class(config):
    read = declared_fields(config.__module__, config.__name__)
    real, inherited = types_of(config), set(types_of(PreTrainedConfig))
    assert set(real) == set(read) | inherited
    assert described(read) == described({name: real[name] for name in read})
    task = next(task for task in TASKS if TASKS[task].config_class.load() is config)
    assert set(settable_fields("model", [task])) - set(settable_fields("model", [])) <= set(read) - inherited


def test_declared_fields_evaluate_annotations_without_importing(tmp_path, monkeypatch):
    """Annotations name builtins, typing, enums of the module or of a sibling, other classes, and unknown names."""
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
    assert describe_type(fields["b"]) == "one of 'x' or null"
    assert describe_type(fields["c"]) == "one of 'a'"
    assert describe_type(fields["d"]) == "one of 'no', 'yes'"
    assert describe_type(fields["e"]) == "Thing or null"
    assert fields["f"] is typing.Any


def test_a_class_that_does_not_exist_is_reported():
    with pytest.raises(ImportError, match="must define the class Nothing"):
        declared_fields("transformers.training_args", "Nothing")
