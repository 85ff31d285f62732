import pytest

from hf_maskattn.recipes.arguments import settable_fields
from hf_maskattn.recipes.field_checks import check_key, nearest_keys

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
