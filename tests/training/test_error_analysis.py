import csv
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_maskattn.data.files import TableFile
from hf_maskattn.data.loading import Splits
from hf_maskattn.data.table_reading import RowLocations
from hf_maskattn.metrics.classification import class_scores, score_by_class
from hf_maskattn.metrics.tagging import score_by_entity, tag_scores
from hf_maskattn.metrics.text import score_rows
from hf_maskattn.training import error_analysis
from hf_maskattn.training.error_analysis import ConfusionMatrix, evaluate_with_errors
from hf_maskattn.training.trainer import SplitOutputs
from tests.training.toy_recipe import assemble_toy, read_jsonl

DRAW = ConfusionMatrix.draw  # which conftest.py replaces


def make_data(rows, labels, tag_scheme=None, **columns):
    """Build the parts of `TaskData` that an analysis reads."""
    settings = {
        "tokens_column": "words",
        "target_column": "target",
        "references_column": None,
        "metric": "text-match",
        **columns,
    }
    encoder = SimpleNamespace(
        input_texts=lambda split: split["text"],
        further_labels=[],
        further_sequence_labels=[],
        recipe=SimpleNamespace(data=SimpleNamespace(**settings), model=SimpleNamespace(problem_type=None)),
    )
    raw = Splits({"test": Dataset.from_list(rows)}, {"test": RowLocations()})
    return SimpleNamespace(encoder=encoder, labels=labels, tag_scheme=tag_scheme, raw=raw)


def outputs(predictions, labels, scores=None):
    return SplitOutputs(np.array(predictions), np.array(labels), None if scores is None else np.array(scores), {})


def test_classes_are_sorted_by_confidence_of_the_wrong_one():
    data = make_data([{"text": text} for text in "abcd"], ["x", "y"])
    scores = [[0.6, 0.4], [0.9, 0.9], [0.8, 0.2], [0.7, 0.7]]
    analysis = error_analysis._analyze_classes(data, "test", {"accuracy": 0.5}, outputs([0, 1, 1, 0], [1, 1, 0, 0], scores))
    assert list(analysis.list_errors()) == [
        {"row": 2, "location": None, "text": "c", "label": "x", "prediction": "y", "score": 0.8, "score_of_label": 0.2},
        {"row": 0, "location": None, "text": "a", "label": "y", "prediction": "x", "score": 0.6, "score_of_label": 0.4},
    ]
    report = analysis.report
    assert report["classes"]["x"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert (report["rows"], report["rows_listed"], report["metrics"]) == (4, 2, {"accuracy": 0.5})
    assert report["most_frequent_errors"][0] == {"label": "x", "prediction": "y", "count": 1}
    assert analysis.confusion.counts.tolist() == [[1, 1], [1, 1]]


def test_label_sets_list_wrong_labels():
    data = make_data([{"text": text} for text in "ab"], ["x", "y", "z"])
    predictions, labels = [[1, 0, 0], [0, 1, 1]], [[1.0, 0, 0], [1.0, 1, 0]]
    scores = [[0.9, 0.1, 0.1], [0.25, 0.75, 0.5]]
    analysis = error_analysis._analyze_label_sets(data, "test", {}, outputs(predictions, labels, scores))
    (error,) = analysis.list_errors()
    assert error["labels"] == ["x", "y"]
    assert error["predictions"] == ["y", "z"]
    assert error["scores_of_errors"] == {"x": 0.25, "z": 0.5}
    assert {name: value["recall"] for name, value in analysis.report["classes"].items()} == {"x": 0.5, "y": 1, "z": 0}


def test_numbers_are_sorted_by_error(monkeypatch):
    monkeypatch.setattr(error_analysis, "MAX_REGRESSION_ROWS", 2)
    data = make_data([{"text": text} for text in "abc"], None)
    analysis = error_analysis._analyze_numbers(data, "test", {}, outputs([[1.0], [5.0], [2.0]], [1.0, 2.0, 0.5]))
    assert [(error["text"], error["absolute_error"]) for error in analysis.list_errors()] == [("b", 3.0), ("c", 1.5)]
    assert analysis.report["quantiles_of_absolute_error"]["50%"] == 1.5


def test_tags_are_analyzed_as_they_are_scored():
    rows = [
        {"text": "a b c", "words": ["a", " ", "b", "c"]},
        {"text": "d", "words": ["d"]},
        {"text": "e f", "words": ["e", "f"]},
    ]
    # The label 4 is the label 1 of a word that shares its token, 6 is the label 0 of a word without a token.
    labels = [[0, 1, 2, -100], [-100, 0, -100, -100], [4, 6, -100, -100]]
    predictions = [[0, 1, 0, 2], [1, 1, 1, 1], [1, 0, 0, 0]]
    scores = [[0.9, 0.8, 0.6, 0.9], [0.1, 0.7, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5]]
    data = make_data(rows, ["O", "B-X", "I-X"])
    analysis = error_analysis._analyze_tags(data, "test", {}, outputs(predictions, labels, scores))
    first, second = analysis.list_errors()
    assert (first["row"], first["words"], first["labels"], first["predictions"]) == (1, ["d"], ["O"], ["B-X"])
    assert first["score"] == pytest.approx(0.7)
    assert (second["words"], second["labels"], second["errors"]) == (["a", "b", "c"], ["O", "B-X", "I-X"], [2])
    assert analysis.report["entities"] == {"X": {"precision": 1 / 3, "recall": 0.5, "f1": 0.4, "support": 2}}
    assert analysis.report["classes"]["B-X"]["support"] == 2
    assert (analysis.confusion.names, analysis.confusion.counts.tolist()) == (["O", "X"], [[2, 1], [1, 2]])


def test_labels_and_tags_are_analyzed_together():
    rows = [{"text": text, "words": text.split()} for text in ("a b", "c", "d", "e")]
    data = make_data(rows, ["O", "B-X", "I-X"])
    data.sequence_labels = ["x", "y"]
    tags, labels = np.array([[0, 1], [1, -100], [0, -100], [1, -100]]), np.array([0, 1, 1, 0])
    predicted = np.array([[0, 0], [1, 0], [1, 0], [1, 0]]), np.array([0, 0, 1, 0])
    scores = np.array([[0.9, 0.6], [0.9, 0], [0.8, 0], [0.9, 0]]), np.array([[0.9, 0.9], [0.7, 0.3], [0.6, 0.6], [0.9, 0.9]])
    analysis = error_analysis._analyze_both(
        data, "test", {"accuracy": 0.75}, SplitOutputs(predicted, (tags, labels), scores, {})
    )
    errors = list(analysis.list_errors())
    listed = [(error["row"], error["label"], error["prediction"], error["tags"]["errors"]) for error in errors]
    assert listed == [(1, "y", "x", []), (2, "y", "y", [0]), (0, "x", "x", [1])]
    assert (errors[0]["score"], errors[1]["tags"]["score"]) == (0.7, 0.8)
    report = analysis.report
    assert (report["rows_listed"], report["metrics"]) == (3, {"accuracy": 0.75})
    assert report["classes"]["y"] == {"precision": 1, "recall": 0.5, "f1": 2 / 3, "support": 2}
    assert report["entities"]["X"]["recall"] == pytest.approx(2 / 3)
    assert report["tags"]["B-X"]["support"] == 3
    assert report["most_frequent_errors"] == [{"label": "y", "prediction": "x", "count": 1}]


def test_tags_without_scheme_have_no_entities():
    data = make_data([{"text": "a b", "words": ["a", "b"]}], ["NOUN", "VERB"], tag_scheme="none")
    analysis = error_analysis._analyze_tags(data, "test", {}, outputs([[0, -1]], [[0, 1]], [[0.9, 0.9]]))
    assert "entities" not in analysis.report
    (error,) = analysis.list_errors()
    assert error["predictions"] == ["NOUN", "O"]  # a word without a token, where labels lack "O"


def test_generated_texts_are_sorted_by_their_error(monkeypatch):
    rows = [{"text": "a", "target": "ab"}, {"text": "b", "target": "ab"}, {"text": "c", "target": "ab"}]
    data = make_data(rows, None)
    data.tokenizer = None
    monkeypatch.setattr(error_analysis, "decode_texts", lambda _, ids, excluded: [["ax", "ab", "xx"][row[0]] for row in ids])
    analysis = error_analysis._analyze_texts(data, "test", {}, outputs([[0], [1], [2]], [[0], [0], [0]]))
    listed = [(error["row"], error["prediction"], error["references"], error["error"]) for error in analysis.list_errors()]
    assert listed == [(2, "xx", ["ab"], 1.0), (0, "ax", ["ab"], 0.5)]


def test_score_rows_is_zero_for_matches_only():
    assert score_rows("text-match", ["ab ", "b", "", "x"], [["ab"], ["xyz", "cb"], [""], [""]]) == [0, 0.5, 0, 1]
    assert score_rows("pronunciation", ["A B", "A"], [["A B"], ["A C"]]) == [0, 0.5]
    good, bad = score_rows("translation", ["a good text", "zzz"], [["a good text"], ["a good text"]])
    assert (good, bad) == (0, 1)


def test_scores_of_predictions_and_labels():
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    expected = logits.softmax(-1)
    scores = class_scores(logits, torch.tensor([0, 5]))
    torch.testing.assert_close(scores, torch.stack([expected.amax(-1), torch.stack([expected[0, 0], torch.tensor(0.0)])], -1))
    torch.testing.assert_close(tag_scores(logits[None], torch.tensor([[0, -100]])), expected.amax(-1)[None])


def test_score_by_class_and_entity():
    assert score_by_class(np.array([0, 1, 1]), np.array([0, 0, 1]), ["x", "y", "z"]) == {
        "x": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        "y": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        "z": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }
    by_entity = score_by_entity([["B-X", "I-X", "O"], ["B-Y"]], [["B-X", "O", "O"], ["B-Y"]])
    assert {name: value["f1"] for name, value in by_entity.items()} == {"X": 0, "Y": 1}


@pytest.mark.parametrize("size", [2, pytest.param(70, marks=pytest.mark.slow)])
def test_confusion_matrix_files(tmp_path, size):
    names = ['a, "b"', "$x$", *(f"a class with a long name {index}" for index in range(size - 2))]
    matrix = ConfusionMatrix.from_ids(np.arange(size), np.zeros(size, dtype=int), names)
    matrix.write_csv(tmp_path / "matrix.csv")
    header, first, second, *_ = csv.reader((tmp_path / "matrix.csv").read_text("utf-8").splitlines())
    assert header == ["label \\ prediction", *names]
    assert (first[:2], second[:3]) == ([names[0], "1"], ["$x$", "1", "0"])
    DRAW(matrix, tmp_path / "matrix.png")
    picture = (tmp_path / "matrix.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert 300 < int.from_bytes(picture[16:20], "big") <= 1600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.csv", "matrix.png"]


def test_missing_matplotlib_is_logged(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="hf_maskattn")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(ConfusionMatrix, "draw", DRAW)
    data = make_data([{"text": "a"}], ["x", "y"])
    error_analysis._analyze_classes(data, "test", {}, outputs([0], [1], [[0.6, 0.4]])).write_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion_matrix.csv", "errors.jsonl", "report.json"]
    assert "The confusion matrix is not drawn. Pictures need matplotlib: pip install" in caplog.messages[0]


def test_locations_of_many_rows(tmp_path):
    (tmp_path / "a.csv").write_text('text\n"two\nlines"\nb\n')
    (tmp_path / "b.csv").write_text("text\nc\n")
    locations = RowLocations([TableFile(str(tmp_path / name)) for name in ("a.csv", "b.csv")], rows=[2, 1, 0])
    assert locations.describe([0, 1, 2]) == {row: str(locations[row]) for row in range(3)}
    assert locations.describe([0, 2]) == {0: f"{tmp_path}/b.csv, line 2", 2: f"{tmp_path}/a.csv, line 3"}
    assert RowLocations().describe([0]) == {}


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_outputs_are_in_the_order_of_the_rows(tmp_path, strategy):
    training = {"train_sampling_strategy": strategy, "per_device_eval_batch_size": 4}
    assembly = assemble_toy(tmp_path, training=training)
    trainer, split = assembly.trainer, assembly.data.splits["test"]
    outputs = trainer.predict_split(split, "test", assembly.evaluation.score_predictions)
    assert outputs.labels.tolist() == split["labels"]
    model = trainer.model.eval()
    with torch.no_grad():
        logits = torch.cat([model(input_ids=torch.tensor([row["input_ids"]])).logits for row in split])
    assert outputs.predictions.tolist() == logits.argmax(-1).tolist()
    np.testing.assert_allclose(outputs.scores[:, 0], logits.softmax(-1).amax(-1), atol=1e-6)
    metrics, analysis = evaluate_with_errors(trainer, "test", assembly.data, assembly.evaluation)
    assert metrics["accuracy"] == pytest.approx(1 - len(analysis.rows) / 12)
    texts = [row["text"] for row in read_jsonl(tmp_path / "test.jsonl")]
    for error in analysis.list_errors():
        assert error["text"] == texts[error["row"]]
        assert error["location"] == f"{tmp_path}/test.jsonl, line {error['row'] + 1}"
