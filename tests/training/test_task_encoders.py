"""Tags become labels, and the entities of the data are those of the labels, of `predict`, of pipelines and of ONNX."""

from types import SimpleNamespace

import pytest
import torch
from datasets import ClassLabel, Dataset, List
from seqeval.metrics.sequence_labeling import get_entities
from transformers import EvalPrediction, pipeline

from hf_maskattn.inference.evaluate import evaluate
from hf_maskattn.inference.predict import predict
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.task_data import evaluation_data, training_data
from hf_maskattn.training.train import train
from tests.tagged_sentences import Oracle, random_rows, write_tagged_rows
from tests.training.toy_recipe import write_recipe


def recipe_of(folder, rows, *overrides, data=None, **others):
    """Write a recipe with these rows. Without `others` it has only a train split."""
    path = write_recipe(folder, "token-classification", data={"tokenizer": "char", "vocab_size": 200, **(data or {})})
    splits = {"train": rows, **others}.items()
    files = [f"data.{name}_file={write_rows(folder / f'{name}_rows.jsonl', rows)}" for name, rows in splits]
    missing = [f"data.{name}_file=" for name in ("validation", "test") if name not in others]
    return load_recipe(path, [*files, *missing, *overrides])


def write_rows(path, rows):
    items = [{"row": {"tokens": words.split(), "tags": tags.split()}} for words, tags in rows]
    return write_tagged_rows(path, items)


def labels_of(data, split="train"):
    return [[data.labels[label] if label >= 0 else None for label in row] for row in data.splits[split]["labels"]]


@pytest.mark.parametrize(
    ("tags", "override", "scheme", "names", "labels"),
    [
        ("S-X O", "labels=[O, S-X, B-X, I-X, E-X]", "BIOES", ["O", "B-X", "I-X"], ["B-X", "I-X", "O", "O"]),
        ("B-X I-X", "tag_scheme=none", "none", ["B-X", "I-X"], ["B-X", "B-X", None, "I-X"]),
    ],
)
def test_labels_and_scheme_of_the_data_can_be_set(tmp_path, tags, override, scheme, names, labels):
    data = training_data(recipe_of(tmp_path, [("ab c", tags)], f"data.{override}"), seed=0)
    assert (data.labels, data.tag_scheme) == (names, scheme)
    assert labels_of(data) == [labels]


def test_wrong_tag_scheme_raises_with_the_row(tmp_path):
    recipe = recipe_of(tmp_path, [("ab", "O"), ("ab c", "B-X E-X")], "data.tag_scheme=IOB2")
    message = r"'train': .*rows\.jsonl, line 2: a tag must be O .* data\.tag_scheme=IOB2, got 'E-X'"
    with pytest.raises(ValueError, match=message):
        training_data(recipe, seed=0)


def test_unknown_tag_scheme_raises(tmp_path):
    with pytest.raises(TypeError, match=r"data\.tag_scheme must be one of 'IOB1', 'IOB2', 'BIOES'.*, got 'BIO'"):
        recipe_of(tmp_path, [("a", "O")], "data.tag_scheme=BIO")
    with pytest.raises(ValueError, match=r"data\.tag_scheme has no effect with model\.task=text-classification"):
        load_recipe(write_recipe(tmp_path), ["data.tag_scheme=IOB2"])
    with pytest.raises(ValueError, match=r"model\.tag_scheme must not be set: .* Use data\.tag_scheme"):
        load_recipe(write_recipe(tmp_path, "token-classification"), ["model.tag_scheme=IOB2"])


def test_further_tag_of_another_split_maps_to_a_label(tmp_path):
    recipe = recipe_of(tmp_path, [("a b", "I-X O")], test=[("a b", "I-X B-X")])
    data = training_data(recipe, seed=0)
    assert data.tag_scheme == "IOB1"
    assert labels_of(data, "test") == [["B-X", None, "B-X"]]


def test_further_entity_type_of_another_split_is_scored(tmp_path, caplog):
    recipe = recipe_of(tmp_path, [("a b", "S-X O")], test=[("a b", "S-X O"), ("a b", "B-Y E-Y"), ("a", "S-X")])
    data = training_data(recipe, seed=0)
    assert data.labels == ["O", "B-X", "I-X"]
    assert data.encoder.further_labels == ["B-Y", "I-Y"]
    assert "2 labels in 1 of 3 rows of the split 'test' are not among those that the model" in caplog.text
    assert data.splits["test"]["labels"][:] == [[1, -100, 0], [3, -100, 4], [1]]
    again = evaluation_data(recipe, 0, "test", data.tokenizer, data.labels, data.tag_scheme)
    assert again.splits["test"]["labels"][:] == data.splits["test"]["labels"][:]
    evaluation = data.encoder.build_evaluation(data)
    labels = torch.tensor([[1, -100, 0], [3, -100, 4], [1, -100, -100]])
    predicted = evaluation.preprocess_logits(9.0 * torch.eye(3)[labels % 3], labels)  # B-X O, O B-X, B-X
    scores = evaluation.compute_metrics(EvalPrediction(predictions=predicted.numpy(), label_ids=labels.numpy()))
    two_of_three = pytest.approx(2 / 3)
    assert scores == {"precision": two_of_three, "recall": two_of_three, "f1": two_of_three, "accuracy": 0.6}


def test_further_tag_without_prefix_raises(tmp_path):
    recipe = recipe_of(tmp_path, [("a b", "I-X O")], test=[("a b", "I-X O"), ("a b", "Y O")])
    with pytest.raises(ValueError, match=r"the split 'test': .*test_rows\.jsonl, line 2: the tag must be one of .*, got 'Y'"):
        training_data(recipe, seed=0)


def test_further_part_of_speech_is_scored(tmp_path):
    recipe = recipe_of(tmp_path, [("a b", "DET NOUN")], test=[("a b", "DET VERB")])
    data = training_data(recipe, seed=0)
    assert (data.labels, data.encoder.further_labels) == (["DET", "NOUN"], ["VERB"])
    assert data.splits["test"]["labels"][:] == [[0, -100, 2]]


@pytest.mark.parametrize("scheme", ["IOB1", "BIOES", "BILOU"])
def test_class_label_ids_are_converted(tmp_path, scheme):
    items = random_rows(scheme, 40, seed=1, with_text=False)
    names = sorted({tag for item in items for tag in item["row"]["tags"]}, reverse=True)
    rows = Dataset.from_list([item["row"] for item in items]).cast_column("tags", List(ClassLabel(names=names)))
    rows.to_parquet(tmp_path / "tagged.parquet")
    by_name = recipe_of(tmp_path, [("a", "O")], f"data.train_file={write_tagged_rows(tmp_path / 'tagged.jsonl', items)}")
    by_number = recipe_of(tmp_path, [("a", "O")], f"data.train_file={tmp_path / 'tagged.parquet'}")
    assert labels_of(training_data(by_number, seed=0)) == labels_of(training_data(by_name, seed=0))


def test_integers_are_ids_of_data_labels(tmp_path):
    recipe = recipe_of(tmp_path, [("a", "O")], "data.labels=[O, S-X, B-X, I-X, E-X]")
    write_tagged_rows(tmp_path / "train_rows.jsonl", [{"row": {"tokens": ["a", "b", "c"], "tags": [1, 2, 4]}}])
    data = training_data(recipe, seed=0)
    assert labels_of(data) == [["B-X", "O", "B-X", "I-X", "I-X"]]
    scored = evaluation_data(recipe, 0, "train", data.tokenizer, data.labels, data.tag_scheme)
    assert labels_of(scored, "train") == [["B-X", None, "B-X", None, "I-X"]]


def test_integers_in_another_split_only_raise(tmp_path):
    recipe = recipe_of(tmp_path, [("a b", "B-X O")], test=[("a b", "B-X O")])
    write_tagged_rows(tmp_path / "test_rows.jsonl", [{"row": {"tokens": ["a"], "tags": [0]}}])
    with pytest.raises(ValueError, match=r"split 'test' .* got 0 \(integer values, but string values in the split 'train'"):
        training_data(recipe, seed=0)


def test_empty_words_are_skipped_with_one_warning(tmp_path, caplog):
    recipe = recipe_of(tmp_path, [("a", "O")], "data.streaming=true", "training.max_steps=2", "data.shuffle_buffer=0")
    items = [{"row": {"tokens": ["a", "", "b"], "tags": ["B-X", "B-X", "I-X"]}}] * 30
    write_tagged_rows(tmp_path / "train_rows.jsonl", items)
    data = training_data(recipe, seed=0)
    stream = iter(data.splits["train"])
    assert [data.labels[label] for label in next(stream)["labels"]] == ["B-X", "O", "B-X"]
    next(stream)
    (message,) = [record.message for record in caplog.records if "empty" in record.message]
    assert message.startswith("30 empty words in the column 'tokens' are skipped")
    assert message.endswith("rows.jsonl, line 1, split 'train (the first 30 rows)'.")


def test_entities_that_tokens_cannot_mark_are_counted(tmp_path, caplog):
    rows = [{"row": {"text": "a bc", "tokens": ["a", "b", "c"], "tags": ["B-X", "B-X", "B-X"]}}] * 2
    recipe = recipe_of(tmp_path, [("a", "O")], data={"tokenizer": "word"})
    write_tagged_rows(tmp_path / "train_rows.jsonl", rows)
    training_data(recipe, seed=0)
    assert "4 of 6 entities in the first rows cannot be learned exactly" in caplog.text
    assert "rows.jsonl, line 1." in caplog.text


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train on sentences in BIOES, with a test split."""
    folder = tmp_path_factory.mktemp("run")
    items = random_rows("BIOES", 60, seed=2, with_text=False)
    recipe_of(folder, [])
    files = [f"data.{name}_file={write_tagged_rows(folder / f'{name}_rows.jsonl', items)}" for name in ("train", "test")]
    path = folder / "toy.yaml"
    report = train(load_recipe(path, [*files, "data.validation_file="]))
    return path, files, items, report


def test_model_is_evaluated_on_any_tag_scheme(run, tmp_path):
    path, files, items, report = run
    scores = []
    for scheme in ("BIOES", "IOB1", "IOB2", "BILOU"):
        again = random_rows(scheme, 60, seed=2, with_text=False)
        assert [item["text"] for item in again] == [item["text"] for item in items]
        test_file = write_tagged_rows(tmp_path / f"{scheme}.jsonl", again)
        recipe = load_recipe(path, [*files[:1], f"data.test_file={test_file}", "data.validation_file="])
        scored = evaluate(report.model_folder, recipe).metrics["test"]
        scores.append({name: scored[name] for name in ("f1", "accuracy", "loss")})
    assert scores[0] == pytest.approx({name: report.metrics["test"][name] for name in scores[0]})
    assert all(score == scores[0] for score in scores)


def test_split_without_entities_is_scored_by_spans(run, tmp_path):
    path, files, _, report = run
    write_rows(tmp_path / "outside.jsonl", [("of New", "O O")])
    recipe = load_recipe(path, [*files[:1], f"data.test_file={tmp_path / 'outside.jsonl'}", "data.validation_file="])
    assert "f1" in evaluate(report.model_folder, recipe).metrics["test"]


NUM_SENTENCES = 100


def load(folder, rows, kind):
    path = write_recipe(folder, "token-classification", data={"tokenizer": kind, "vocab_size": 300})
    files = (f"data.train_file={write_tagged_rows(folder / 'tagged.jsonl', rows)}", "data.validation_file=", "data.test_file=")
    return training_data(load_recipe(path, files), seed=0)


def entities_of_labels(data, rows):
    """Read the entities of the labels of the tokens with seqeval."""
    found = []
    for item, encoded in zip(rows, data.splits["train"], strict=True):
        offsets = data.tokenizer(item["text"], return_offsets_mapping=True)["offset_mapping"]
        tags = [data.labels[label] for label in encoded["labels"]]
        found.append([(name, offsets[first][0], offsets[last][1]) for name, first, last in get_entities(tags)])
    return found


def entities_of(results):
    return [[(item["entity_group"], item["start"], item["end"]) for item in result] for result in results]


@pytest.mark.parametrize(
    "kind", ["char", "bpe", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("word", "wordpiece"))]
)
@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BIOES", "BILOU"])
def test_entities_round_trip(tmp_path, monkeypatch, scheme, kind):
    rows = random_rows(scheme, NUM_SENTENCES, seed=len(scheme + kind), with_text=scheme in ("IOB1", "BIOES"))
    data = load(tmp_path, rows, kind)
    assert data.tag_scheme == scheme
    assert set(data.labels) == {"O", *(f"{prefix}-{name}" for prefix in "BI" for name in ("PER", "LOC", "MISC-x"))}
    expected = [item["entities"] for item in rows]
    assert entities_of_labels(data, rows) == expected

    oracle = Oracle.from_split(data.splits["train"], data.labels, data.tag_scheme)
    texts = [item["text"] for item in rows]
    read = pipeline("token-classification", model=oracle, tokenizer=data.tokenizer, aggregation_strategy="simple", device="cpu")
    assert entities_of(read(texts, batch_size=32)) == expected

    oracle.config.save_pretrained(tmp_path)
    data.tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr("hf_maskattn.inference.predict.load_verified_model", lambda *args, **settings: oracle)
    assert entities_of(result["predictions"] for result in predict(tmp_path, texts)) == expected

    def run(input_ids, attention_mask):
        return oracle(torch.from_numpy(input_ids), torch.from_numpy(attention_mask)).logits.numpy(), None

    session = SimpleNamespace(run=run, shapes={"logits": ["batch", "time", len(data.labels)]})
    monkeypatch.setattr("hf_maskattn.onnx.runtime.OnnxSession", lambda path: session)
    results = predict(tmp_path, texts[:50], onnx_file=tmp_path / "model.onnx")
    assert entities_of(result["predictions"] for result in results) == expected[:50]
