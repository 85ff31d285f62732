import dataclasses
import math
import traceback
from pathlib import Path

import pytest
from transformers import TrainingArguments

from hf_maskattn import MaskAttnConfig
from hf_maskattn.recipes.arguments import settable_fields
from hf_maskattn.recipes.recipe import load_recipe, parse_yaml
from tests.training.toy_recipe import write_recipe

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def recipe_file(tmp_path):
    return write_recipe(tmp_path)


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_is_read_into_its_groups(tmp_path):
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


def test_every_own_field_of_the_configuration_can_be_set_except_those_the_data_tells():
    settable = settable_fields("model")
    own = {field.name for field in dataclasses.fields(MaskAttnConfig)} - {"vocab_size", "pad_token_id"}
    assert {"rnn_type", "attention_query", "tie_word_embeddings"} <= set(settable) & own
    assert not {"vocab_size", "pad_token_id", "num_labels", "architectures"} & set(settable)


def test_every_training_field_can_be_set_except_those_the_command_decides():
    left_out = {field.name for field in dataclasses.fields(TrainingArguments)} - set(settable_fields("training"))
    decided = {"resume_from_checkpoint", "do_train", "do_eval", "do_predict", "local_rank"}
    assert left_out == {"hub_token", "hub_always_push", *decided}


def test_overrides_win_and_the_last_one_most(recipe_file):
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
def test_an_override_mends_its_file(recipe_file, wrong, override):
    key = wrong.partition(":")[0]
    lines = [line for line in recipe_file.read_text().splitlines() if not line.startswith(key)]
    lines.insert(lines.index("model:") + 1, wrong)
    recipe_file.write_text("\n".join(lines))
    with pytest.raises((TypeError, ValueError), match=wrong.split()[-1]):
        load_recipe(recipe_file)
    assert load_recipe(recipe_file, [override]).model.task == "text-classification"


def test_seq2seq_is_a_name_of_the_task(tmp_path):
    by_usual_name = load_recipe(write_recipe(tmp_path, "text2text-generation"), ["model.task=seq2seq"])
    assert by_usual_name == load_recipe(write_recipe(tmp_path, "text2text-generation"))
    assert by_usual_name.model.task == "text2text-generation"
    by_usual_name = load_recipe(write_recipe(tmp_path, "text2text-generation", model={"task": "seq2seq"}))
    assert by_usual_name.model.task == "text2text-generation"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("wordpeice", "wordpiece"), ("WordPiece", "wordpiece"), ("chars", "char"), ("BPE", "bpe"), ("symbol", "symbols")],
)
def test_a_misspelled_kind_of_tokenizer_is_named_before_the_hub_is_asked(recipe_file, tmp_path, monkeypatch, name, kind):
    with pytest.raises(ValueError, match=rf"^data\.tokenizer must be one of char, .* got '{name}'\. Did you mean {kind}\?$"):
        load_recipe(recipe_file, [f"data.tokenizer={name}", "data.vocab_size=9"])
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    recipe_file.write_text("\n".join(line for line in recipe_file.read_text().splitlines() if "vocab_size" not in line))
    assert load_recipe(recipe_file, [f"data.tokenizer={name}"]).data.tokenizer == name


@pytest.mark.parametrize("name", ["gpt2", "t5-small", "user/words", "user/char", "bert-base-cased"])
def test_a_tokenizer_of_the_hub_is_no_misspelled_kind(recipe_file, name):
    recipe_file.write_text("\n".join(line for line in recipe_file.read_text().splitlines() if "vocab_size" not in line))
    assert load_recipe(recipe_file, [f"data.tokenizer={name}"]).data.tokenizer == name


def test_an_empty_override_is_null(recipe_file):
    assert load_recipe(recipe_file, ["data.test_file="]).data.test_file is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lerning_rate=1", "training.lerning_rate does not exist: did you mean training.learning_rate?"),
        ("training.warmup_ratio=0.1", "did you mean training.warmup_steps?"),
        ("model.hiden_size=3", "did you mean model.hidden_size?"),
        ("data.zzz=1", "data.zzz does not exist: there are: csv_separator, label_column, "),
        (
            "training.hub_token=hf_x",
            "training.hub_token may not be set: a token does not belong in a file: run `hf auth",
        ),
        ("training.push_to_hub_token=hf_x", "set the variable HF_TOKEN"),
        ("training.hub_always_push=true", "may not be set: every save is published anyway"),
        ("training.resume_from_checkpoint=x", "say it on the command line: --resume"),
        ("model.vocab_size=9", "model.vocab_size may not be set: it comes from the tokenizer"),
        ("model.id2label={}", "it comes from the labels of the data"),
        ("training.early_stopping_patience=3", "its keys are the fields of transformers.TrainingArguments."),
        (
            "model.task=translation",
            "model.task must be one of text-classification, token-classification, fill-mask, seq2seq, got",
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
def test_wrong_overrides_are_named(recipe_file, override, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared below)
        load_recipe(recipe_file, [override])
    key, equals, _ = override.partition("=")
    assert str(raised.value).startswith(f"override {key!r}" if equals else "an override without `=` is not")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_size=big", "model.hidden_size='big': expected a whole number."),
        ("model.hidden_size=2.5", "model.hidden_size=2.5: expected a whole number."),
        ("model.hidden_size=true", "model.hidden_size=True: expected a whole number."),
        ("model.rnn_type=rnn", "model.rnn_type='rnn': expected one of 'lstm', 'gru'."),
        ("model.hidden_dropout_prob=a", "model.hidden_dropout_prob='a': expected a number or a whole number."),
        ("data.lowercase=yes", "data.lowercase='yes': expected true or false."),
        ("data.labels=[1, 2]", "data.labels=[1, 2]: expected a list of text or null."),
        ("training.learning_rate=fast", "training.learning_rate='fast': expected a number."),
        ("training.learning_rate=true", "training.learning_rate=True: expected a number."),
        ("training.lr_scheduler_type=cosin", "expected one of 'linear', 'cosine', "),
        ("training.seed=", "training.seed=None: expected a whole number."),
    ],
)
def test_wrong_values_are_named_with_what_is_expected(recipe_file, override, message):
    with pytest.raises(TypeError) as raised:
        load_recipe(recipe_file, [override])
    assert str(raised.value).startswith(f"override {override.partition('=')[0]!r}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {task: fill-mask\n", "recipe.yaml, line 2: "),
        ("modle: {}", "group `modle:` does not exist, there are: model, data, training."),
        ("model: {hidden: 3}", "recipe.yaml: model.hidden does not exist: did you mean model.hidden_size or "),
        ("data: {tokenizer: char}", "model.task is missing: text-classification, "),
        (
            "model: {task: text2text-generation}\ndata: {tokenizer: char, text_column: x}",
            "data.text_column means nothing for model.task=seq2seq, only for text-classification and",
        ),
        (
            "model: {task: text2text-generation, num_hidden_layers: 2}\ndata: {tokenizer: char}",
            "model.num_hidden_layers means nothing for model.task=seq2seq, only for text-classification and",
        ),
        (
            "model: {task: fill-mask}\ndata: {tokenizer: char}\ntraining: {generation_num_beams: 2}",
            "training.generation_num_beams means nothing for model.task=fill-mask, only for seq2seq.",
        ),
        (
            "model: {task: text2text-generation}\ndata: {tokenizer: char}\ntraining: {predict_with_generate: false}",
            "training.predict_with_generate=False leaves nothing to score but the loss: remove it, or set",
        ),
        (
            "model: {task: text2text-generation}\ndata: {tokenizer: bpe, lowercase: true}",
            "data.lowercase=True would have every text written in lower case, which right answers with capitals cannot equal: ",
        ),
        ("model: {task: fill-mask}", "data.tokenizer is missing: char, word, symbols, bpe, wordpiece to train one, or"),
        (
            "model: {task: text-classification, pretrained: x}\ndata: {tokenizer: char}",
            "data.tokenizer may not be set: model.pretrained=x brings its tokenizer.",
        ),
        (
            "model: {task: text-classification, pretrained: x}\ndata: {vocab_size: 9}",
            "data.vocab_size means nothing for the tokenizer x, which is loaded, not trained: remove it or",
        ),
        (
            "model: {task: fill-mask, problem_type: regression}\ndata: {tokenizer: char}",
            "model.problem_type means nothing for model.task=fill-mask, only for text-classification.",
        ),
        (
            "model: {task: text-classification}\ndata: {tokenizer: char, mlm_probability: 0.2}",
            "data.mlm_probability means nothing for model.task=text-classification, only for fill-mask.",
        ),
        (
            "model: {task: fill-mask}\ndata: {tokenizer: char, labels: [a]}",
            "data.labels means nothing for model.task=fill-mask, only for text-classification and token-classification.",
        ),
        (
            "model: {task: text-classification, problem_type: regression}\ndata: {tokenizer: char, labels: [a]}",
            "data.labels means nothing for model.problem_type=regression, where a label is a number: remove it.",
        ),
        (
            "model: {task: text-classification}\ndata: {tokenizer: char, labels: [a, b, a]}",
            "data.labels=['a', 'b', 'a']: 'a' is given twice.",
        ),
        ("model: {task: text-classification}\ndata: {tokenizer: char, labels: []}", "data.labels=[]: give at least one name."),
    ],
)
def test_wrong_files_are_named(tmp_path, text, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared below)
        load_recipe(write(tmp_path, text))
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["", "- model", "model: text-classification"])
def test_files_without_groups_are_refused(tmp_path, text):
    with pytest.raises(TypeError, match=r"recipe.yaml"):
        load_recipe(write(tmp_path, text))


def test_files_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"model: \xff")
    with pytest.raises(ValueError, match=r"recipe.yaml is not UTF-8 text \(byte 7\)"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.yaml", r"There is no recipe .*none\.yaml\. Pass a YAML file .* or the name of one"),
        ("empty", r"There is no recipe .*empty\. Pass"),
        ("run", r"run is a folder, its recipe is .*run.recipe\.yaml\."),
        ("training.hub_token=hf_secret", r"no recipe `.*training\.hub_token=\.\.\.`: the recipe comes first, changes"),
    ],
)
def test_a_place_without_a_recipe_is_named_with_the_way_out(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(FileNotFoundError, match=message) as raised:
        load_recipe(tmp_path / path)
    assert "hf_secret" not in "".join(traceback.format_exception(raised.value, chain=True))


def test_labels_of_tokens_are_called_tags(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path, "token-classification"))
    assert recipe.label_column == "tags"


def test_a_choice_is_checked_for_the_task(recipe_file):
    recipe_file.write_text("model: {task: text2text-generation, attention_query: learned}\ndata: {tokenizer: char}")
    with pytest.raises(TypeError, match=r"model\.attention_query='learned': expected one of 'previous', 'current'\."):
        load_recipe(recipe_file)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_the_project_are_read_and_say_how(path):
    assert path.read_text().splitlines()[1].startswith(f"# hf-maskattn train configs/{path.name}")
    assert load_recipe(path).training["seed"] == 0


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
def test_scalars_are_those_of_yaml_1_2(text, value):
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


def test_duplicate_keys_are_refused_with_their_line():
    with pytest.raises(ValueError, match=r"^here, line 3: key 'b' is given twice\.$"):
        parse_yaml("a:\n  b: 1\n  b: 2\n", "here")


def test_broken_yaml_is_told_with_its_line():
    with pytest.raises(ValueError, match=r"^here, line 2: "):
        parse_yaml("a: 1\n b: [\n", "here")


def test_keys_that_are_no_words_are_refused():
    with pytest.raises(ValueError, match=r"^here, line 1: key 1 is not a word\.$"):
        parse_yaml("1: a", "here")


def test_python_objects_are_not_built():
    with pytest.raises(ValueError, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.system ['true']", "here")
