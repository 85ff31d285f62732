import re
import traceback
from pathlib import Path

import pytest

from hf_maskattn.recipes.recipe import check_local_files, load_recipe
from tests.training.toy_recipe import load_toy, write_recipe

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def recipe_file(tmp_path):
    return write_recipe(tmp_path)


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_recipe_has_groups(tmp_path):
    path = write(
        tmp_path,
        "model: {task: text-classification, hidden_size: 32, hidden_dropout_prob: 0}\n"
        "data: {source: cldr-languages, tokenizer: char}\n"
        "training: {learning_rate: 2e-5, eval_strategy: no, num_train_epochs: 3}\n",
    )
    recipe = load_recipe(path)
    assert recipe.name == "recipe"
    assert recipe.model.task == "text-classification"
    assert recipe.model.config == {"hidden_size": 32, "hidden_dropout_prob": 0}
    assert (recipe.data.source, recipe.data.tokenizer, recipe.label_column) == ("cldr-languages", "char", "label")
    assert recipe.training == {"learning_rate": 2e-5, "eval_strategy": "no", "num_train_epochs": 3}


def test_last_override_wins(recipe_file):
    recipe = load_recipe(recipe_file, ["training.learning_rate=1e-3", "model.rnn_type=gru", "training.learning_rate=3e-3"])
    assert recipe.training["learning_rate"] == 3e-3
    assert recipe.model.config["rnn_type"] == "gru"


@pytest.mark.parametrize(
    ("wrong", "override"),
    [
        ("  task: text2text", "model.task=text-classification"),
        ("  rnn_type: rnn", "model.rnn_type=gru"),
        ("  problem_type: regresion", "model.problem_type="),
    ],
)
def test_override_replaces_an_invalid_value_of_the_file(recipe_file, wrong, override):
    key = wrong.partition(":")[0]
    lines = [line for line in recipe_file.read_text().splitlines() if not line.startswith(key)]
    lines.insert(lines.index("model:") + 1, wrong)
    recipe_file.write_text("\n".join(lines))
    with pytest.raises((TypeError, ValueError), match=wrong.split()[-1]):
        load_recipe(recipe_file)
    assert load_recipe(recipe_file, [override]).model.task == "text-classification"


def test_seq2seq_is_text2text_generation(tmp_path):
    by_usual_name = load_recipe(write_recipe(tmp_path, "text2text-generation"), ["model.task=seq2seq"])
    assert by_usual_name == load_recipe(write_recipe(tmp_path, "text2text-generation"))
    assert by_usual_name.model.task == "text2text-generation"
    by_usual_name = load_recipe(write_recipe(tmp_path, "text2text-generation", model={"task": "seq2seq"}))
    assert by_usual_name.model.task == "text2text-generation"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("wordpeice", "wordpiece"), ("WordPiece", "wordpiece"), ("chars", "char"), ("BPE", "bpe"), ("symbol", "symbols")],
)
def test_misspelled_tokenizer_kind_is_suggested(recipe_file, tmp_path, monkeypatch, name, kind):
    with pytest.raises(ValueError, match=rf"^data\.tokenizer must be one of char, .* got '{name}'\. Did you mean {kind}\?$"):
        load_recipe(recipe_file, [f"data.tokenizer={name}", "data.vocab_size=9"])
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_toy(tmp_path, data={"tokenizer": name, "vocab_size": None}).data.tokenizer == name


@pytest.mark.parametrize("name", ["gpt2", "t5-small", "user/words", "user/char", "bert-base-cased"])
def test_hub_tokenizer_is_not_a_misspelled_kind(tmp_path, name):
    assert load_toy(tmp_path, data={"tokenizer": name, "vocab_size": None}).data.tokenizer == name


def test_loaded_tokenizer_replaces_a_trained_one(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {task: text-classification}\ndata: {train_file: a.csv, tokenizer: word, lowercase: true}\n")
    overrides = ["model.embeddings=bert", "data.tokenizer=null", "data.lowercase=false"]
    assert load_recipe(path, overrides).model.embeddings == "bert"
    with pytest.raises(ValueError, match=r"data\.lowercase has no effect with the tokenizer bert"):
        load_recipe(path, overrides[:2])


def test_empty_override_is_null(recipe_file):
    assert load_recipe(recipe_file, ["data.test_file="]).data.test_file is None


def test_null_removes_a_key_that_must_not_be_null(tmp_path):
    path, override = write_recipe(tmp_path, data={"vocab_size": 3000}), "data.vocab_size=null"
    assert load_recipe(path, [override]).data.vocab_size == 8000
    assert load_recipe(path, [override, "data.tokenizer=bert"]).data.tokenizer == "bert"
    with pytest.raises(ValueError, match="vocab_size"):
        load_recipe(path, ["data.tokenizer=bert"])


def test_null_for_an_unknown_key_raises(recipe_file):
    with pytest.raises(ValueError, match="vocabsize"):
        load_recipe(recipe_file, ["data.vocabsize=null"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lerning_rate=1", "training.lerning_rate does not exist. Did you mean training.learning_rate?"),
        ("model.hiden_size=3", "Did you mean model.hidden_size?"),
        ("data.zzz=1", "data.zzz does not exist. Use one of augmentation, csv_separator, label_column, "),
        ("training.hub_token=hf_x", "training.hub_token must not be set: a token must not be stored in a file. Run `hf auth"),
        ("training.push_to_hub_token=hf_x", "set the variable HF_TOKEN"),
        ("training.hub_always_push=true", "must not be set: every save is published in any case"),
        ("training.resume_from_checkpoint=x", "use the option --resume on the command line"),
        ("model.vocab_size=9", "model.vocab_size must not be set: it is set from the tokenizer"),
        ("model.id2label={}", "it is set from the labels of the data"),
        ("training.curriculum=3", "Use a field of transformers.TrainingArguments."),
        (
            "model.task=translation",
            "model.task must be one of text-classification, token-classification, joint-classification, fill-mask, seq2seq",
        ),
        ("model.task=translation", "got 'translation'. Did you mean seq2seq?"),
        ("model.task=ner", "Did you mean token-classification?"),
        ("model.task=sqe2seq", "Did you mean seq2seq?"),
        ("model.task=3", "fill-mask, seq2seq, got 3."),
        ("learning_rate=1", "is not of the form group.key=value"),
        ("optimizer.lr=1", "is not of the form group.key=value"),
        ("model.hidden_size", "is not of the form group.key=value"),
        ("training.seed={", "line 1"),
    ],
)
def test_invalid_override_is_reported(recipe_file, override, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared below)
        load_recipe(recipe_file, [override])
    key, equals, _ = override.partition("=")
    assert str(raised.value).startswith(f"override {key!r}" if equals else "an override without `=` is not")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_size=big", "model.hidden_size must be an integer, got 'big'."),
        ("model.hidden_size=2.5", "model.hidden_size must be an integer, got 2.5."),
        ("model.hidden_size=true", "model.hidden_size must be an integer, got True."),
        ("model.rnn_type=rnn", "model.rnn_type must be one of 'lstm', 'gru', got 'rnn'."),
        ("model.hidden_dropout_prob=a", "model.hidden_dropout_prob must be a number, got 'a'."),
        ("data.lowercase=yes", "data.lowercase must be true or false, got 'yes'."),
        ("data.labels=[1, 2]", "data.labels must be a list of strings or null, got [1, 2]."),
        ("training.learning_rate=fast", "training.learning_rate must be a number, got 'fast'."),
        ("training.learning_rate=true", "training.learning_rate must be a number, got True."),
        ("training.lr_scheduler_type=cosin", "training.lr_scheduler_type must be one of 'linear', 'cosine', "),
        ("training.seed=", "training.seed must be an integer, got None."),
    ],
)
def test_invalid_value_is_reported_with_the_type(recipe_file, override, message):
    with pytest.raises(TypeError) as raised:
        load_recipe(recipe_file, [override])
    assert str(raised.value).startswith(f"override {override.partition('=')[0]!r}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {task: fill-mask\n", "recipe.yaml, line 2: "),
        ("modle: {}", "recipe.yaml: the group must be one of model, data, teacher, training, tuning, got 'modle'."),
        ("model: {hidden: 3}", "recipe.yaml: model.hidden does not exist. Did you mean model.hidden_size or "),
        ("data: {tokenizer: char}", "model.task is missing. Set it to one of text-classification, "),
        (
            "model: {task: text2text-generation}\ndata: {tokenizer: char, text_column: x}",
            "data.text_column has no effect with model.task=seq2seq, only with text-classification and",
        ),
        (
            "model: {task: text2text-generation, num_hidden_layers: 2}\ndata: {tokenizer: char}",
            "model.num_hidden_layers has no effect with model.task=seq2seq, only with text-classification and",
        ),
        (
            "model: {task: fill-mask}\ndata: {tokenizer: char}\ntraining: {generation_num_beams: 2}",
            "training.generation_num_beams has no effect with model.task=fill-mask, only with seq2seq. Remove it.",
        ),
        (
            "model: {task: text2text-generation}\ndata: {tokenizer: char}\ntraining: {predict_with_generate: false}",
            "training.predict_with_generate=false leaves only the loss to report. Remove it, or also set",
        ),
        (
            "model: {task: text2text-generation}\ndata: {tokenizer: bpe, lowercase: true}",
            "data.lowercase=true is not supported with text-to-text generation, because generated text would never",
        ),
        (
            "model: {task: fill-mask}\ndata: {tokenizer: word}\ntraining: {warmup_ratio: 0.1, warmup_steps: 5}",
            "training.warmup_ratio and training.warmup_steps are mutually exclusive. Remove one",
        ),
        (
            "model: {task: fill-mask}",
            "data.tokenizer is missing. Set it to one of char, word, symbols, bpe, wordpiece to train one, or",
        ),
        (
            "model: {task: text-classification, pretrained: x}\ndata: {tokenizer: char}",
            "data.tokenizer must not be set with model.pretrained=x, whose tokenizer is used.",
        ),
        (
            "model: {task: text-classification, pretrained: x}\ndata: {vocab_size: 9}",
            "data.vocab_size has no effect with the tokenizer x, which is loaded. Remove it, or train a",
        ),
        (
            "model: {task: fill-mask, problem_type: regression}\ndata: {tokenizer: char}",
            "model.problem_type has no effect with model.task=fill-mask, only with text-classification. Remove it.",
        ),
        (
            "model: {task: text-classification}\ndata: {tokenizer: char, mlm_probability: 0.2}",
            "data.mlm_probability has no effect with model.task=text-classification, only with fill-mask. Remove it.",
        ),
        (
            "model: {task: fill-mask}\ndata: {tokenizer: char, labels: [a]}",
            "data.labels has no effect with model.task=fill-mask, only with text-classification and token-class",
        ),
        (
            "model: {task: text-classification, problem_type: regression}\ndata: {tokenizer: char, labels: [a]}",
            "data.labels has no effect with model.problem_type=regression. Remove it.",
        ),
        (
            "model: {task: text-classification}\ndata: {tokenizer: char, labels: [a, b, a]}",
            "data.labels must be a list of different names, got ['a', 'b', 'a'].",
        ),
        (
            "model: {task: text-classification}\ndata: {tokenizer: char, labels: []}",
            "data.labels must be a list of different names, got [].",
        ),
    ],
)
def test_invalid_recipe_is_reported(tmp_path, text, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared below)
        load_recipe(write(tmp_path, text))
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["", "- model", "model: text-classification"])
def test_recipe_without_groups_raises(tmp_path, text):
    with pytest.raises(TypeError, match=r"recipe.yaml"):
        load_recipe(write(tmp_path, text))


def test_binary_recipe_raises(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"model: \xff")
    with pytest.raises(ValueError, match=r"recipe.yaml must be UTF-8 text, got an invalid byte at 7\."):
        load_recipe(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.yaml", r"There is no recipe .*none\.yaml\. Use a YAML file, such as the recipe\.yaml of a run"),
        ("empty", r"There is no recipe .*empty\. Use"),
        ("run", r"RECIPE must be a file, got the folder .*run\. Use .*run.recipe\.yaml\."),
        (
            "training.hub_token=hf_secret",
            r"must come before overrides .*, got `.*training\.hub_token=\.\.\.`\. Put the recipe first",
        ),
    ],
)
def test_missing_recipe_error_has_a_way_out(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(FileNotFoundError, match=message) as raised:
        load_recipe(tmp_path / path)
    assert "hf_secret" not in "".join(traceback.format_exception(raised.value, chain=True))


def test_choices_depend_on_the_task(recipe_file):
    recipe_file.write_text("model: {task: text2text-generation, attention_query: learned}\ndata: {tokenizer: char}")
    with pytest.raises(TypeError, match=r"model\.attention_query must be one of 'previous', 'current', got 'learned'\."):
        load_recipe(recipe_file)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_loads_and_shows_its_command(path):
    assert path.read_text().splitlines()[1].startswith(f"# hf-maskattn train configs/{path.name}")
    assert load_recipe(path).training["seed"] == 0


@pytest.mark.parametrize(
    ("key", "minimum"),
    [
        ("data.max_length", 1),
        ("data.max_target_length", 1),
        ("training.generation_max_length", 2),
        ("training.generation_num_beams", 1),
    ],
)
def test_lengths_have_a_minimum(tmp_path, key, minimum):
    path = write_recipe(tmp_path, "text2text-generation")
    for value in (minimum - 1, -3):
        with pytest.raises(ValueError, match=rf"^{key} must be at least {minimum}, got {value}\.$"):
            load_recipe(path, [f"{key}={value}"])
    for value in (minimum, ""):
        load_recipe(path, [f"{key}={value}"])


STREAM = ["data.streaming=true", "training.max_steps=5"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.streaming=true"], r"^training\.max_steps must be set with data\.streaming=true, because"),
        (["data.streaming=true", "training.max_steps=0"], r"^training\.max_steps must be set with data\.streaming=true"),
        ([*STREAM, "data.validation_fraction=0.1"], r"^data\.validation_fraction=0\.1 is not supported .*\. Set data\.valid"),
        (
            [*STREAM, "training.train_sampling_strategy=group_by_length"],
            r"^training\.train_sampling_strategy=group_by_length is not supported .*\. Remove it\. data\.shuffle_buffer=0",
        ),
        (
            [*STREAM, "training.save_strategy=epoch"],
            r"^training\.save_strategy=epoch is not supported .* has no epochs\. Use training\.save_strategy=steps\.$",
        ),
        ([*STREAM, "training.eval_strategy=epoch"], r"^training\.eval_strategy=epoch is not supported"),
        ([*STREAM, "training.logging_strategy=epoch"], r"^training\.logging_strategy=epoch is not supported"),
        (
            [*STREAM, "training.dataloader_in_order=false"],
            r"^training\.dataloader_in_order=false is not supported .*\. Remove it",
        ),
        ([*STREAM, "data.shuffle_buffer=-1"], r"^data\.shuffle_buffer must be at least 0, got -1"),
        ([*STREAM, "data.sample_rows=0"], r"^data\.sample_rows must be at least 1, got 0"),
        (["data.shuffle_buffer=5"], r"^data\.shuffle_buffer has no effect without data\.streaming\. Remove it, or set"),
        (["data.sample_rows=5"], r"^data\.sample_rows has no effect without data\.streaming"),
    ],
)
def test_stream_rejects_settings_that_need_all_rows(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(write_recipe(tmp_path), overrides)


def test_stream_accepts_other_settings(tmp_path):
    overrides = [*STREAM, "data.shuffle_buffer=0", "training.train_sampling_strategy=random", "training.save_strategy=steps"]
    assert load_recipe(write_recipe(tmp_path), overrides).data.shuffle_buffer == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.train_file=nowhere.jsonl",
            r"^data\.train_file must be an existing file or pattern, got 'nowhere\.jsonl'\. There is no such file, relative to",
        ),
        ("data.test_file=nowhere/a.csv", r"^data\.test_file must be .*, got 'nowhere/a\.csv'\. There is no such file"),
        ("data.validation_file=part-*.jsonl", r"^data\.validation_file must be .*, got 'part-\*\.jsonl'\. No file matches"),
    ],
)
def test_missing_local_file_is_reported_with_its_key(tmp_path, override, message):
    recipe = load_recipe(write_recipe(tmp_path), [override])
    with pytest.raises(FileNotFoundError, match=message):
        check_local_files(recipe)


@pytest.mark.parametrize(
    "name", ["train.jsonl", "t*.jsonl", "**/train.jsonl", "[t]rain.jsonl", "a [b]", "a [b]/*.jsonl", "a [b]/x.jsonl"]
)
def test_existing_local_files_and_patterns_are_accepted(tmp_path, name):
    path = write_recipe(tmp_path)
    (tmp_path / "a [b]").mkdir()
    (tmp_path / "a [b]" / "x.jsonl").touch()
    check_local_files(load_recipe(path, [f"data.train_file={tmp_path / name}"]))


def test_only_files_of_needed_splits_are_checked(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path), ["data.train_file=nowhere.jsonl"])
    check_local_files(recipe, ["test"])


def test_warmup_ratio_is_a_warmup_below_one(recipe_file):
    assert load_recipe(recipe_file, ["training.warmup_ratio=0.2"]).training["warmup_steps"] == 0.2
    overrides = ["training.warmup_steps=50", "training.warmup_ratio=0.2", "training.warmup_steps=30"]
    assert load_recipe(recipe_file, overrides[:2]).training["warmup_steps"] == 0.2
    assert load_recipe(recipe_file, overrides).training["warmup_steps"] == 30
    assert "warmup_ratio" not in load_recipe(recipe_file, overrides).training


@pytest.mark.parametrize(
    ("task", "overrides", "min_frequency", "dropout"),
    [
        ("text-classification", [], 2, 0.25),
        ("token-classification", ["data.min_frequency=5", "data.unknown_word_dropout=0"], 5, 0),
        ("text-classification", ["data.tokenizer=bpe"], 1, 0),
        ("text-classification", ["data.tokenizer=char", "data.min_frequency=1"], 1, 0),
        ("fill-mask", [], 2, 0),
        ("text2text-generation", [], 1, 0),
    ],
)
def test_rare_words_defaults(tmp_path, task, overrides, min_frequency, dropout):
    recipe = load_recipe(write_recipe(tmp_path, task), overrides)
    assert (recipe.min_frequency, recipe.unknown_word_dropout) == (min_frequency, dropout)


@pytest.mark.parametrize(
    ("task", "override", "message"),
    [
        ("text-classification", "tokenizer=symbols", "data.min_frequency must be 1 with data.tokenizer=symbols, which"),
        ("text-classification", "tokenizer=org/name", "data.min_frequency has no effect with the tokenizer org/name"),
        ("fill-mask", "unknown_word_dropout=0.1", "data.unknown_word_dropout has no effect with model.task=fill-mask"),
    ],
)
def test_rare_words_without_effect_raise(tmp_path, task, override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_toy(tmp_path, f"data.{override}", task=task, data={"min_frequency": 3, "vocab_size": None})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.warmup_ratio=1", "training.warmup_ratio must be in [0, 1), got 1."),
        ("training.warmup_ratio=.nan", "training.warmup_ratio must be in [0, 1), got nan."),
        ("data.min_frequency=0", "data.min_frequency must be at least 1, got 0."),
        ("data.unknown_word_dropout=-1", "data.unknown_word_dropout must be at least 0, got -1."),
        ("data.unknown_word_dropout=.inf", "data.unknown_word_dropout must be at least 0, got inf."),
    ],
)
def test_value_out_of_range_raises(recipe_file, override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recipe(recipe_file, [override])


@pytest.mark.parametrize("name", ["", "/data/pets", "./pets", "~/pets", "C:\\pets", "own/pets"])
def test_name_of_the_data_is_no_path(recipe_file, tmp_path, monkeypatch, name):
    (tmp_path / "own" / "pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data\.name must be a name to show in the model card and not a path, got"):
        load_recipe(recipe_file, [f"data.name='{name}'"])
    assert load_recipe(recipe_file, ["data.name=user/pets"]).data.name == "user/pets"
