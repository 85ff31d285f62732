from itertools import islice

import datasets
import pytest

from hf_maskattn.data.streaming import RowStream
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.tasks import TASKS
from hf_maskattn.training.task_data import evaluation_data, training_data
from tests.training.toy_recipe import SIZES, STREAM, load_toy, read_jsonl, write_recipe


def load(tmp_path, task="text-classification", *overrides, **groups):
    return training_data(load_toy(tmp_path, *overrides, task=task, **groups), seed=0)


def save_tokenizer(tmp_path, tokenizer):
    """Save a tokenizer, and return the fields of a recipe that loads it."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return {"tokenizer": str(tmp_path / "tokenizer"), "vocab_size": None}


def test_texts_are_encoded_with_labels(tmp_path):
    data = load(tmp_path)
    assert {name: split.num_rows for name, split in data.splits.items()} == SIZES
    assert data.labels == ["cat", "dog"]
    assert set(data.splits["train"].column_names) == {"input_ids", "attention_mask", "labels"}


def test_tagged_words_are_joined_without_a_text_column(tmp_path):
    data = load(tmp_path, "token-classification")
    assert data.labels == ["B-SOUND", "O", "I-SOUND"]
    assert len(data.splits["train"][0]["labels"]) == len(data.splits["train"][0]["input_ids"])


def test_text_column_of_tagged_words_is_used(tmp_path):
    def make(row):
        return {**row, "text": "!".join(row["tokens"]), "more": 1}

    data, stream = (load(tmp_path, "token-classification", *overrides, make=make) for overrides in ((), STREAM))
    assert "!" in data.tokenizer.get_vocab()
    assert "!" in stream.tokenizer.get_vocab()
    assert stream.splits["train"].shards.column_names == ["tags", "tokens", "text"]


def test_masked_language_modeling_needs_only_text(tmp_path):
    data = load(tmp_path, "fill-mask", make=lambda row: {"text": row["text"]})
    assert data.labels is None
    assert set(data.splits["train"].column_names) == {"input_ids", "attention_mask"}


def test_texts_are_truncated_to_max_length(tmp_path):
    data = load(tmp_path, "text-classification", "data.max_length=3")
    assert max(len(row) for row in data.splits["train"]["input_ids"]) == 3
    assert data.tokenizer.model_max_length == 3


@pytest.mark.parametrize(("limit", "expected"), [(7, 7), (int(1e30), 512)])
def test_loaded_tokenizer_keeps_its_limit(tmp_path, limit, expected):
    tokenizer = train_tokenizer(["meow woof"], kind="char", vocab_size=40, max_length=7)
    tokenizer.model_max_length = limit
    data = load(tmp_path, data=save_tokenizer(tmp_path, tokenizer))
    assert data.tokenizer.model_max_length == expected
    assert data.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_recipe_without_train_split_raises(tmp_path):
    with pytest.raises(ValueError, match=r"the recipe has no train split\. Set data\.source"):
        load(tmp_path, "text-classification", "data.train_file=")


def test_evaluation_uses_the_label_ids_of_the_model(tmp_path):
    data = load(tmp_path)
    recipe = load_recipe(write_recipe(tmp_path))
    turned = evaluation_data(recipe, 0, "test", data.tokenizer, ["dog", "cat"]).splits["test"]["labels"]
    assert [1 - label for label in turned] == list(data.splits["test"]["labels"])


@pytest.mark.parametrize("task", TASKS)
def test_stream_has_the_rows_of_the_train_split(tmp_path, task):
    full, stream = load(tmp_path, task), load(tmp_path, task, *STREAM)
    assert isinstance(stream.splits["train"], RowStream)
    assert list(islice(stream.splits["train"], SIZES["train"])) == list(full.splits["train"])
    assert stream.labels == full.labels
    assert stream.tokenizer.get_vocab() == full.tokenizer.get_vocab()
    assert list(stream.splits["test"]) == list(full.splits["test"])


def test_stream_trains_the_tokenizer_on_its_first_rows(tmp_path):
    data = load(tmp_path, "text-classification", *STREAM, "data.sample_rows=1", "data.labels=[cat, dog]")
    full = load(tmp_path, "text-classification")
    assert set(data.tokenizer.get_vocab()) < set(full.tokenizer.get_vocab())


@pytest.mark.parametrize("task", ["text-classification", "text2text-generation"])
def test_stream_needs_no_other_split(tmp_path, task):
    data = load(tmp_path, task, *STREAM, "data.validation_file=", "data.test_file=")
    assert set(data.splits) == {"train"}
    assert not data.references


def test_references_are_those_of_the_evaluated_rows(tmp_path):
    # One reference a row, which identifies its split.
    locations = iter(range(100))
    data = load(tmp_path, "text2text-generation", make=lambda row: {**row, "target": f"a {next(locations)}"})
    trained = SIZES["train"]
    assert sorted(text for texts in data.references.values() for text in texts) == sorted(
        f"a {place}" for place in range(trained, trained + SIZES["validation"] + SIZES["test"])
    )
    recipe = load_recipe(tmp_path / "toy.yaml")
    scored = evaluation_data(recipe, 0, "train", data.tokenizer, [])
    assert len([text for texts in scored.references.values() for text in texts]) == trained


@pytest.mark.parametrize("stream", [(), STREAM])
@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (None, TypeError, r"train\.jsonl, line 4: the target must be a string, got None \(NoneType\)\. Remove the row"),
        ([], ValueError, r"train\.jsonl, line 4: the list of targets must not be empty"),
    ],
)
def test_invalid_target_raises_with_its_row(tmp_path, stream, target, error, message):
    locations = iter(range(100))

    def make(row):
        return {**row, "target": target if next(locations) == 3 else [row["target"]]}

    with pytest.raises(error, match=message):
        load(tmp_path, "text2text-generation", *stream, make=make)


def test_new_label_later_in_a_stream_raises(tmp_path):
    overrides = (*STREAM, "data.sample_rows=20", "data.validation_file=", "data.test_file=")
    labels = iter(["cat", "bird"] * 15 + ["dog"] * 70)
    data = load(tmp_path, "text-classification", *overrides, make=lambda row: {**row, "label": next(labels)})
    message = (
        r"train\.jsonl, line 31, column 'label': .*'dog'.* The labels were collected from the first 20 rows\. "
        r"List all labels in data\.labels, or raise data\.sample_rows\.$"
    )
    with pytest.raises(ValueError, match=message):
        list(islice(data.splits["train"], 40))


def test_data_labels_list_all_labels(tmp_path):
    for overrides in ((*STREAM, "data.sample_rows=20"), ()):
        labels = iter(["cat"] * 30 + ["dog"] * 70)
        settings = (*overrides, "data.labels=[dog, cat]")
        data = load(tmp_path, "text-classification", *settings, make=lambda row, labels=labels: {**row, "label": next(labels)})
        assert data.labels == ["dog", "cat"]
        assert [row["labels"] for row in islice(data.splits["train"], 31)] == [1] * 30 + [0]


def test_class_label_names_are_the_labels_of_a_stream(tmp_path):
    path = write_recipe(tmp_path)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a", "never"])})
    rows = {"text": ["x y", "y"], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    overrides = (*STREAM, f"data.train_file={tmp_path / 'train.parquet'}", "data.validation_file=", "data.test_file=")
    data = training_data(load_recipe(path, overrides), seed=0)
    assert data.labels == ["z", "a", "never"]
    assert [row["labels"] for row in islice(data.splits["train"], 2)] == [0, 1]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"label": None}, r"train\.jsonl, line 31, column 'label': the label is missing"),
        ({"text": None}, r"train\.jsonl, line 31: the text must be a string, got None"),
    ],
)
def test_invalid_row_of_a_stream_raises_when_it_is_read(tmp_path, broken, message):
    seen = iter(range(100))

    def make(row):
        return {**row, **(broken if next(seen) == 30 else {})}

    data = load(tmp_path, "text-classification", *STREAM, "data.sample_rows=20", make=make)
    with pytest.raises((ValueError, TypeError), match=message):
        list(islice(data.splits["train"], 40))


def test_stream_cannot_be_evaluated(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path), STREAM)
    with pytest.raises(ValueError, match=r"the train split cannot be evaluated with data\.streaming=true"):
        evaluation_data(recipe, 0, "train", None, ["cat", "dog"])


def test_multi_label_with_one_label_is_accepted(tmp_path):
    labels = iter([["a"], []] * 50)
    model = {"problem_type": "multi_label_classification"}
    assert load(tmp_path, model=model, make=lambda row: {**row, "label": next(labels)}).labels == ["a"]


def test_integers_are_not_ids_if_labels_are_strings(tmp_path):
    sizes = iter(range(100))
    data = load(tmp_path)
    recipe = load_recipe(write_recipe(tmp_path, make=lambda row: {**row, "label": 1 if next(sizes) >= 52 else row["label"]}))
    with pytest.raises(ValueError, match=r"'test' .* got 1 \(integer values, but string values in the split 'train'\)"):
        evaluation_data(recipe, 0, "test", data.tokenizer, data.labels)
    recipe = load_recipe(tmp_path / "toy.yaml", ["data.labels=[cat, dog]"])
    assert set(evaluation_data(recipe, 0, "test", data.tokenizer, data.labels).splits["test"]["labels"]) == {1}
    recipe = load_recipe(tmp_path / "toy.yaml", ["data.train_file="])
    assert set(evaluation_data(recipe, 0, "test", data.tokenizer, data.labels).splits["test"]["labels"]) == {1}


def test_all_missing_columns_are_reported_with_their_keys(tmp_path):
    message = (
        r"no column 'label' and no column 'text'; its columns are a\. .*: data\.label_column=\.\.\., data\.text_column=\.\.\."
    )
    for stream in ((), STREAM):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, "text-classification", *stream, make=lambda row: {"a": 1})


LONG = {"text": "paw " * 9, "label": "cat", "tokens": ["paw"] * 9, "tags": ["O"] * 9, "source": "a " * 9, "target": "b " * 9}


def with_long_rows(row):
    """Give about three of ten rows 9 words instead of at most 7."""
    return {key: LONG[key] for key in row} if sum(map(len, map(str, row.values()))) % 3 == 0 else row


def lengths(row):
    return [
        len((row.get("text") or row.get("source") or " ".join(row.get("tokens", ()))).split()),
        len(row.get("target", "").split()),
    ]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_truncated_rows_are_counted_once_a_split(tmp_path, caplog, task, streaming):
    pairs = task == "text2text-generation"
    data = {"max_length": 4, **({"max_target_length": 3} if pairs else {})}
    if streaming:
        data |= {"streaming": True, "shuffle_buffer": 5, "sample_rows": 40}
    training = {"max_steps": 2} if streaming else {}
    recipe = load_recipe(write_recipe(tmp_path, task, data=data, training=training, make=with_long_rows))
    ends = int(pairs)
    expected = []
    for split in ("validation", "test") if streaming else SIZES:
        rows = [lengths(row) for row in read_jsonl(tmp_path / f"{split}.jsonl")]
        for column, (key, limit) in enumerate({"max_length": 4, "max_target_length": 3}.items()):
            cut = [row[column] + ends - limit for row in rows if row[column] + ends > limit]
            if cut:
                texts = "targets" if column else "texts"
                expected.append(
                    f"{len(cut)} of {len(rows)} rows of the split {split!r} have {texts} longer than {key}={limit} tokens; "
                    f"{sum(cut)} tokens were truncated. Raise data.{key} to keep them."
                )
    for _ in range(2):  # the second time, datasets has the rows in its cache
        caplog.clear()
        data = training_data(recipe, seed=0)
        if streaming:
            columns = {key for row in islice(data.splits["train"], 100) for key in row}
            assert not any("beyond" in column for column in columns)
        assert sorted(data.list_warnings()) == sorted(expected)
        of_words = [message for message in caplog.messages if "have no token" in message]
        assert len(of_words) == (2 if task in ("token-classification", "joint-classification") else 0)
        of_stream = [message for message in caplog.messages if message not in of_words]
        assert len(of_stream) == (streaming and 1 + pairs)
        assert all("Later rows are truncated silently." in message for message in of_stream)
        assert not any("beyond" in name for name in data.splits["validation"].column_names)


def test_rows_within_max_length_are_not_reported(tmp_path, caplog):
    data = training_data(load_recipe(write_recipe(tmp_path, data={"max_length": 7})), seed=0)
    assert data.list_warnings() == caplog.messages == []


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_stream_has_the_token_counts_of_its_rows(tmp_path, task):
    full, stream = load(tmp_path, task), load(tmp_path, task, *STREAM)
    assert full.encoder.token_counts.sum() == sum(map(len, full.splits["train"]["input_ids"]))
    assert stream.encoder.token_counts.tolist() == full.encoder.token_counts.tolist()


def test_token_counts_are_only_for_unknown_word_dropout(tmp_path):
    assert load(tmp_path, "text-classification", "data.unknown_word_dropout=0").encoder.token_counts is None
    assert load(tmp_path, "fill-mask").encoder.token_counts is None


def test_unknown_words_of_the_validation_split_are_reported(tmp_path):
    (message,) = load(tmp_path, "text-classification", "data.vocab_size=4").list_warnings()
    assert "tokens of the split 'validation' are unknown" in message
    assert "Keep more words with data.min_frequency=1 or a larger data.vocab_size" in message


def test_unknown_word_dropout_without_unknown_token_raises(tmp_path):
    tokenizer = train_tokenizer(["meow woof"], kind="bpe", vocab_size=400, max_length=7)
    tokenizer.unk_token = None
    fields = {**save_tokenizer(tmp_path, tokenizer), "unknown_word_dropout": 0.1}
    with pytest.raises(ValueError, match=r"data\.unknown_word_dropout must be 0 with .*, whose tokenizer has no unknown token"):
        load(tmp_path, data=fields)


@pytest.mark.parametrize(
    ("task", "token", "message"),
    [
        ("fill-mask", "mask_token", r"the tokenizer of .* must have a token for mask, which model\.task=fill-mask needs"),
        ("text2text-generation", "eos_token", r"must have a token for end-of-sequence, which model\.task=seq2seq needs"),
    ],
)
def test_tokenizer_without_the_token_of_its_task_raises(tmp_path, task, token, message):
    settings = {"kind": "bpe", "vocab_size": 400, "max_length": 7, "for_generation": task != "fill-mask"}
    tokenizer = train_tokenizer(["meow woof a b c d"], **settings)
    setattr(tokenizer, token, None)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, task, data=save_tokenizer(tmp_path, tokenizer))


def test_unlabeled_file_without_the_column_is_named(tmp_path):
    (tmp_path / "more.csv").write_text("body\na b\n")
    overrides = [f"data.unlabeled_file={tmp_path / 'more.csv'}", "teacher.model=x"]
    words = r"data\.unlabeled_file=.*more\.csv: .*has no column 'text'; its columns are body\."
    with pytest.raises(ValueError, match=words):
        training_data(load_recipe(write_recipe(tmp_path), overrides), seed=0)
