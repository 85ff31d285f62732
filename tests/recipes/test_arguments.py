import pytest

from hf_maskattn.recipes.arguments import check_key, nearest_keys, settable_fields
from hf_maskattn.recipes.recipe import load_recipe
from tests.training.toy_recipe import write_recipe

NEAR = {
    "training": {
        "lerning_rate": "learning_rate",
        "learning-rate": "learning_rate",
        "learningrate": "learning_rate",
        "lr": "learning_rate",
        "epochs": "num_train_epochs",
        "num_epochs": "num_train_epochs",
        "train_batch_size": "per_device_train_batch_size",
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "evaluation_strategy": "eval_strategy",
        "eval_step": "eval_steps",
        "out_dir": "output_dir",
        "optimizer": "optim",
        "lr_scheduler": "lr_scheduler_type",
        "warmup_ratio": "warmup_steps",
        "no_cuda": "use_cpu",
        "group_by_length": "train_sampling_strategy",
        "BF16": "bf16",
        "label_smoothing": "label_smoothing_factor",
        "num_beams": "generation_num_beams",
        "sed": "seed",
    },
    "model": {
        "hiden_size": "hidden_size",
        "hidden": "hidden_size",
        "embedding_dim": "embedding_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "rnn": "rnn_type",
        "attn_implementation": "attention_implementation",
        "pretrained_model": "pretrained",
        "hidden_dropout": "hidden_dropout_prob",
    },
    "data": {
        "valid_file": "validation_file",
        "train": "train_file",
        "text_col": "text_column",
        "lable_column": "label_column",
        "lower_case": "lowercase",
        "max_len": "max_length",
        "vocab": "vocab_size",
        "stream": "streaming",
    },
}
FAR = {
    "training": [
        *("early_stopping_patience", "early_stopping", "patience", "momentum", "gradient_clipping", "precision", "device"),
        *("logging_dir", "max_epochs", "random_seed", "callbacks", "checkpoint_every", "overwrite_output_dir", "tokenizer"),
    ],
    "model": ["n_layers", "cell_type", "activation", "name", "max_length"],
    "data": ["zzz", "dev_file", "dataset", "path", "seed", "batch_size", "language", "class_weights"],
}


@pytest.mark.parametrize(("group", "key", "meant"), [(group, key, near) for group in NEAR for key, near in NEAR[group].items()])
def test_the_key_that_is_meant_is_suggested_first(group, key, meant):
    assert nearest_keys(key, settable_fields(group))[0] == meant


@pytest.mark.parametrize(("group", "key"), [(group, key) for group in FAR for key in FAR[group]])
def test_nothing_is_suggested_for_a_key_with_another_meaning(group, key):
    assert nearest_keys(key, settable_fields(group)) == []


def test_several_keys_are_suggested_where_several_are_near():
    with pytest.raises(ValueError, match=r"^data\.train does not exist: did you mean data\.train_file or data\.train_split\?$"):
        check_key("data", "train", settable_fields("data"))


def test_few_keys_are_listed_and_many_are_not():
    with pytest.raises(ValueError, match=r"^model\.zzz does not exist: there are: attention_dropout_prob, vocab\.$"):
        check_key("model", "zzz", ["vocab", "attention_dropout_prob"])
    with pytest.raises(ValueError, match=r"does not exist: its keys are the fields of transformers\.TrainingArguments\.$"):
        check_key("training", "zzz", settable_fields("training"))


@pytest.mark.parametrize(
    ("key", "least"),
    [
        ("data.max_length", 1),
        ("data.max_target_length", 1),
        ("training.generation_max_length", 2),
        ("training.generation_num_beams", 1),
    ],
)
def test_lengths_that_leave_nothing_are_refused(tmp_path, key, least):
    path = write_recipe(tmp_path, "text2text-generation")
    for value in (least - 1, -3):
        with pytest.raises(ValueError, match=rf"^{key}={value} must be at least {least}\.$"):
            load_recipe(path, [f"{key}={value}"])
    for value in (least, ""):
        load_recipe(path, [f"{key}={value}"])


STREAM = ["data.streaming=true", "training.max_steps=5"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.streaming=true"], r"training\.max_steps is missing: with data\.streaming nobody knows how many rows"),
        (["data.streaming=true", "training.max_steps=0"], r"training\.max_steps is missing"),
        (
            [*STREAM, "data.validation_fraction=0.1"],
            r"data\.validation_fraction=0\.1 cannot be cut from a stream .*: give data\.val",
        ),
        (
            [*STREAM, "training.train_sampling_strategy=group_by_length"],
            r"training\.train_sampling_strategy=group_by_length needs all rows at hand, .*: remove it; data\.shuffle_buffer=0",
        ),
        ([*STREAM, "training.save_strategy=epoch"], r"training\.save_strategy=epoch never comes: .* has no epochs; say steps"),
        ([*STREAM, "training.eval_strategy=epoch"], r"training\.eval_strategy=epoch never comes"),
        ([*STREAM, "training.logging_strategy=epoch"], r"training\.logging_strategy=epoch never comes"),
        (
            [*STREAM, "training.dataloader_in_order=false"],
            r"training\.dataloader_in_order=false leaves the order .*: remove it",
        ),
        ([*STREAM, "data.shuffle_buffer=-1"], r"data\.shuffle_buffer=-1 must be at least 0"),
        ([*STREAM, "data.sample_rows=0"], r"data\.sample_rows=0 must be at least 1"),
        (["data.shuffle_buffer=5"], r"data\.shuffle_buffer means nothing without data\.streaming: remove it, or set"),
        (["data.sample_rows=5"], r"data\.sample_rows means nothing without data\.streaming"),
    ],
)
def test_what_does_not_go_with_a_stream_is_refused_by_name(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(write_recipe(tmp_path), overrides)


def test_what_goes_with_a_stream_is_taken(tmp_path):
    overrides = [*STREAM, "data.shuffle_buffer=0", "training.train_sampling_strategy=random", "training.save_strategy=steps"]
    assert load_recipe(write_recipe(tmp_path), overrides).data.shuffle_buffer == 0
