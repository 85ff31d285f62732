"""What a model gets wrong on a split: scores of each class, a confusion matrix, and the rows with errors."""

import csv
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from hf_maskattn.checkpoints.checkpoints import partial_path, write_atomically
from hf_maskattn.checkpoints.run_folder import CONFUSION_FILE, CONFUSION_PICTURE, ERRORS_FILE, REPORT_FILE
from hf_maskattn.data.pair_encoding import reference_texts
from hf_maskattn.data.tag_decoding import NO_LABEL
from hf_maskattn.data.tag_encoding import split_word_label
from hf_maskattn.data.tag_reading import is_visible
from hf_maskattn.data.tag_schemes import are_span_tags
from hf_maskattn.metrics.classification import score_by_class
from hf_maskattn.metrics.tagging import score_by_entity
from hf_maskattn.metrics.task_metrics import TaskEvaluation
from hf_maskattn.metrics.text import decode_texts, score_rows
from hf_maskattn.model.losses import IGNORED
from hf_maskattn.model.remote_code import install_command
from hf_maskattn.training.results import BestEvaluation, score, select_metrics
from hf_maskattn.training.task_data import TaskData
from hf_maskattn.training.trainer import MaskAttnTrainer, SplitOutputs

logger = logging.getLogger(__name__)

MAX_REGRESSION_ROWS = 1000
"""Number of rows with the largest errors that are listed for regression, where nearly every row has an error."""

MAX_CLASSES_IN_PICTURE = 70
_MAX_PAIRS = 20
_MAX_CHARACTERS = 24
_ROWS_PER_BATCH = 1000
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often a class is predicted for each label.

    Attributes:
        names: Names of the classes.
        counts: `[C, C]`, int: rows are labels, columns are predictions.
    """

    names: Sequence[str]
    counts: np.ndarray

    @classmethod
    def from_ids(cls, labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> "ConfusionMatrix":
        """Count labels and predictions `[N]`, ids of `names`."""
        return cls(names, confusion_matrix(labels, predictions, labels=range(len(names))))

    def most_frequent_errors(self) -> list[dict[str, Any]]:
        """Return the pairs of label and wrong prediction that are most frequent, at most 20."""
        errors = self.counts * ~np.eye(len(self.names), dtype=bool)
        order = np.argsort(-errors, axis=None, kind="stable")[:_MAX_PAIRS]
        pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
        return [
            {"label": self.names[label], "prediction": self.names[prediction], "count": int(errors[label, prediction])}
            for label, prediction in pairs
            if errors[label, prediction]
        ]

    def write_csv(self, path: Path) -> None:
        """Write the counts with the names of the classes, in UTF-8."""
        rows = [[name, *counts] for name, counts in zip(self.names, self.counts.tolist(), strict=True)]
        with partial_path(path).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["label \\ prediction", *self.names], *rows])
        partial_path(path).replace(path)

    def draw(self, path: Path) -> None:
        """Draw the counts, each row colored by its shares, at most 1,600 pixels wide.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(f"Pictures need matplotlib: {install_command('viz')}") from error
        size = len(self.names)
        width = min(16.0, 4 + 0.4 * size)  # inches of 100 pixels
        font_size = min(9.0, 30 * width / size)  # points: names and numbers fit into a cell
        figure = Figure(figsize=(width, 0.85 * width), dpi=100, layout="constrained")
        axes = figure.subplots()
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        names = [name if len(name) <= _MAX_CHARACTERS else f"{name[: _MAX_CHARACTERS - 1]}…" for name in self.names]
        axes.set_xticks(range(size), names, rotation=90, fontsize=font_size, parse_math=False)
        axes.set_yticks(range(size), names, fontsize=font_size, parse_math=False)
        axes.set(xlabel="prediction", ylabel="label")
        for label, prediction in zip(*np.nonzero(self.counts), strict=True):
            axes.text(
                prediction,
                label,
                f"{self.counts[label, prediction]}",
                ha="center",
                va="center",
                fontsize=font_size if size <= 40 else 0.8 * font_size,
                color="white" if shares[label, prediction] > 0.5 else "black",
            )
        figure.colorbar(image, label="share of the label", fraction=0.03, pad=0.01)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            figure.savefig(partial_path(path), format="png")
        partial_path(path).replace(path)


@dataclass(frozen=True)
class ErrorAnalysis:
    """What a model gets wrong on a split.

    Attributes:
        data: The data, with its raw rows.
        split: Name of the split.
        metrics: Values by metric name.
        rows: `[E]`, indices of the rows that are listed because of their errors, the worst first.
        describe: Function that describes label and prediction of a row.
        scores: Further values of the report, such as the scores by class.
        confusion: The confusion matrix of classes or tags, None for other tasks.
    """

    data: TaskData
    split: str
    metrics: dict[str, float]
    rows: np.ndarray
    describe: Callable[[int], dict[str, Any]]
    scores: dict[str, Any] = field(default_factory=dict)
    confusion: ConfusionMatrix | None = None

    @property
    def report(self) -> dict[str, Any]:
        """Everything but the rows, for a JSON file."""
        pairs = {} if self.confusion is None else {"most_frequent_errors": self.confusion.most_frequent_errors()}
        counts = {"rows": self.data.raw[self.split].num_rows, "rows_listed": len(self.rows)}
        return {"split": self.split, "metrics": self.metrics, **counts, **self.scores, **pairs}

    def summarize(self) -> str:
        """Say how many rows are listed."""
        return f"{len(self.rows):,} of {self.data.raw[self.split].num_rows:,} rows of the split {self.split!r}"

    def list_errors(self) -> Iterator[dict[str, Any]]:
        """Yield each row with errors: index, location in a file, text, label and prediction."""
        raw = self.data.raw[self.split]
        locations: dict[int, str] = {}
        try:
            locations = self.data.raw.locations[self.split].describe(self.rows.tolist())
        except (OSError, ValueError) as error:  # the file was changed meanwhile
            logger.warning(f"The rows with errors have no locations. {error}")
        for start in range(0, len(self.rows), _ROWS_PER_BATCH):
            rows = self.rows[start : start + _ROWS_PER_BATCH].tolist()
            for row, text in zip(rows, self.data.encoder.input_texts(raw.select(rows)), strict=True):
                yield {"row": row, "location": locations.get(row), "text": text, **self.describe(row)}

    def write_errors(self, path: Path) -> None:
        """Write the rows with errors as JSON Lines."""
        with partial_path(path).open("w", encoding="utf-8", errors="backslashreplace") as file:
            for error in self.list_errors():
                file.write(json.dumps(error, ensure_ascii=False) + "\n")
        partial_path(path).replace(path)

    def write_files(self, folder: Path) -> None:
        """Write report, rows with errors and confusion matrix to the folder of a run."""
        write_atomically(folder / REPORT_FILE, json.dumps(self.report, indent=2, ensure_ascii=False) + "\n")
        self.write_errors(folder / ERRORS_FILE)
        if self.confusion is None:
            return
        self.confusion.write_csv(folder / CONFUSION_FILE)
        size = len(self.confusion.names)
        if size > MAX_CLASSES_IN_PICTURE:
            logger.info(f"The confusion matrix of {size} classes is not drawn. {folder / CONFUSION_FILE} has its numbers.")
            return
        try:
            self.confusion.draw(folder / CONFUSION_PICTURE)
        except ImportError as error:
            logger.info(f"The confusion matrix is not drawn. {error}")


def evaluate_with_errors(
    trainer: MaskAttnTrainer, split: str, data: TaskData, evaluation: TaskEvaluation
) -> tuple[dict[str, float], ErrorAnalysis | None]:
    """Evaluate a split, and analyze the errors of the same predictions.

    Returns:
        The metrics as `score` returns them, and the errors. None for a task without an analysis, and without predictions.
    """
    arguments = data.encoder.recipe.model
    if trainer.args.prediction_loss_only or not is_analyzed(arguments.task):
        return score(trainer, split, data.splits[split], evaluation), None
    outputs = trainer.predict_split(data.splits[split], split, evaluation.score_predictions)
    metrics = select_metrics(outputs.metrics, split, evaluation)
    analyze = _ANALYSES[arguments.problem_type or arguments.task]
    return metrics, analyze(data, split, metrics, outputs)


def _label_names(data: TaskData) -> list[str]:
    """Return the names of the labels of the model, and of those that only this split has."""
    return [*(data.labels or ()), *data.encoder.further_labels]


def is_analyzed(task: str) -> bool:
    """Whether the errors of a task are analyzed."""
    return task in _ANALYSES


def _analyze_classes(
    data: TaskData, split: str, metrics: dict[str, float], outputs: SplitOutputs, names: Sequence[str] | None = None
) -> ErrorAnalysis:
    """Analyze one label per row. Rows are sorted by the probability of the wrong label."""
    names = _label_names(data) if names is None else names
    labels, predictions, probabilities = outputs.labels, outputs.predictions, outputs.scores
    rows = np.flatnonzero(predictions != labels)
    rows = rows[np.argsort(-probabilities[rows, 0], kind="stable")]

    def describe(row: int) -> dict[str, Any]:
        score, score_of_label = map(float, probabilities[row])
        names_of_row = {"label": names[labels[row]], "prediction": names[predictions[row]]}
        return {**names_of_row, "score": score, "score_of_label": score_of_label}

    by_class = {"classes": score_by_class(labels, predictions, names)}
    confusion = ConfusionMatrix.from_ids(labels, predictions, names)
    return ErrorAnalysis(data, split, metrics, rows, describe, by_class, confusion)


def _analyze_label_sets(data: TaskData, split: str, metrics: dict[str, float], outputs: SplitOutputs) -> ErrorAnalysis:
    """Analyze several labels per row. Rows are sorted by the distance of the probability of a wrong label from its value."""
    names, labels = _label_names(data), outputs.labels > 0
    further = ((0, 0), (0, len(names) - outputs.predictions.shape[1]))  # labels that the model does not predict
    predictions, probabilities = np.pad(outputs.predictions, further), np.pad(outputs.scores, further)
    is_wrong = predictions != labels  # [N, C]
    rows = np.flatnonzero(is_wrong.any(axis=1))
    distances = np.where(is_wrong, np.abs(probabilities - labels), 0).max(axis=1)
    rows = rows[np.argsort(-distances[rows], kind="stable")]

    def describe(row: int) -> dict[str, Any]:
        label_names = [names[index] for index in np.flatnonzero(labels[row])]
        predicted_names = [names[index] for index in np.flatnonzero(predictions[row])]
        scores = {names[index]: float(probabilities[row, index]) for index in np.flatnonzero(is_wrong[row])}
        return {"labels": label_names, "predictions": predicted_names, "scores_of_errors": scores}

    return ErrorAnalysis(data, split, metrics, rows, describe, {"classes": score_by_class(labels, predictions, names)})


def _analyze_numbers(data: TaskData, split: str, metrics: dict[str, float], outputs: SplitOutputs) -> ErrorAnalysis:
    """Analyze numbers. The rows with the largest errors are listed."""
    labels, predictions = outputs.labels.ravel(), outputs.predictions.ravel()
    errors = np.abs(predictions - labels)
    rows = np.argsort(-errors, kind="stable")[:MAX_REGRESSION_ROWS]

    def describe(row: int) -> dict[str, Any]:
        return {"label": float(labels[row]), "prediction": float(predictions[row]), "absolute_error": float(errors[row])}

    quantiles = {f"{quantile:.0%}": float(np.quantile(errors, quantile)) for quantile in _QUANTILES}
    return ErrorAnalysis(data, split, metrics, rows, describe, {"quantiles_of_absolute_error": quantiles})


def _analyze_tags(data: TaskData, split: str, metrics: dict[str, float], outputs: SplitOutputs) -> ErrorAnalysis:
    """Analyze the tags of words, as they are scored. Rows are sorted by the probability of their most probable wrong tag."""
    names, is_labeled = _label_names(data), outputs.labels != IGNORED  # [N, T]
    labels, kinds = split_word_label(np.where(is_labeled, outputs.labels, 0), len(names))
    has_token = is_labeled & (kinds == 0)
    predictions = np.where(is_labeled, outputs.predictions, 0)
    if NO_LABEL in predictions:
        predictions, names = np.where(predictions == NO_LABEL, len(names), predictions), [*names, "O"]
    is_wrong = labels != predictions
    confidences = np.where(is_wrong & has_token, outputs.scores, 0).max(axis=1, initial=0)
    rows = np.flatnonzero(is_wrong.any(axis=1))
    rows = rows[np.argsort(-confidences[rows], kind="stable")]

    def name_tags(ids: np.ndarray, row: int) -> list[str]:
        return [names[index] for index in ids[row, is_labeled[row]]]

    def describe(row: int) -> dict[str, Any]:
        tags = {"labels": name_tags(labels, row), "predictions": name_tags(predictions, row)}
        errors = np.flatnonzero(is_wrong[row, is_labeled[row]]).tolist()
        words = _tagged_words(data, split, row, is_labeled[row])
        return {"words": words, **tags, "errors": errors, "score": float(confidences[row])}

    scores = {"classes": score_by_class(labels[is_labeled], predictions[is_labeled], names)}
    types = list(names)  # of each tag
    if are_span_tags(names, data.tag_scheme):
        tags = ([name_tags(ids, row) for row in range(len(ids))] for ids in (labels, predictions))
        scores = {"entities": score_by_entity(*tags), **scores}
        types = [name.partition("-")[2] or name for name in names]
    classes = list(dict.fromkeys(types))
    class_ids = np.array([classes.index(name) for name in types])
    confusion = ConfusionMatrix.from_ids(class_ids[labels[is_labeled]], class_ids[predictions[is_labeled]], classes)
    return ErrorAnalysis(data, split, metrics, rows, describe, scores, confusion)


def _analyze_both(data: TaskData, split: str, metrics: dict[str, float], outputs: SplitOutputs) -> ErrorAnalysis:
    """Analyze a label per row and the tags of its words. Rows with a wrong label are first, those with wrong tags last."""
    tag_outputs, label_outputs = [
        SplitOutputs(predictions, labels, scores, metrics)
        for predictions, labels, scores in zip(outputs.predictions, outputs.labels, outputs.scores, strict=True)
    ]
    tags = _analyze_tags(data, split, metrics, tag_outputs)
    names = [*(data.sequence_labels or ()), *data.encoder.further_sequence_labels]
    labels = _analyze_classes(data, split, metrics, label_outputs, names)

    def describe(row: int) -> dict[str, Any]:
        return {**labels.describe(row), "tags": tags.describe(row)}

    rows = np.concatenate([labels.rows, tags.rows[~np.isin(tags.rows, labels.rows)]])
    scores = {**tags.scores, "tags": tags.scores["classes"], **labels.scores}
    return ErrorAnalysis(data, split, metrics, rows, describe, scores, labels.confusion)


def _tagged_words(data: TaskData, split: str, row: int, is_labeled: np.ndarray) -> list[str]:
    """Return the words of a row, or its tokens if these are what has labels."""
    tokens_column = data.encoder.recipe.data.tokens_column
    words = [word for word in data.raw[split][row][tokens_column] if is_visible(word)]
    if len(words) == is_labeled.sum():
        return words
    ids = np.asarray(data.splits[split][row]["input_ids"])
    return data.tokenizer.convert_ids_to_tokens(ids[is_labeled[: len(ids)]].tolist())


def _analyze_texts(data: TaskData, split: str, metrics: dict[str, float], outputs: SplitOutputs) -> ErrorAnalysis:
    """Analyze generated texts. Rows are sorted by the score of their text."""
    recipe, raw = data.encoder.recipe, data.raw[split]
    column = recipe.data.references_column or recipe.data.target_column
    metric = recipe.data.metric

    def texts_of(rows: Sequence[int]) -> tuple[list[str], list[list[str]]]:
        values = zip(rows, raw.select(rows)[column], strict=True)
        references = [reference_texts(data.raw.locations[split][row], value) for row, value in values]
        return decode_texts(data.tokenizer, outputs.predictions[list(rows)], excluded={IGNORED}), references

    batches = (range(start, min(start + _ROWS_PER_BATCH, raw.num_rows)) for start in range(0, raw.num_rows, _ROWS_PER_BATCH))
    errors = np.concatenate([score_rows(metric, *texts_of(rows)) for rows in batches])
    rows = np.argsort(-errors, kind="stable")[: int((errors > 0).sum())]

    def describe(row: int) -> dict[str, Any]:
        (prediction,), (references,) = texts_of([row])
        return {"references": references, "prediction": prediction, "error": float(errors[row])}

    return ErrorAnalysis(data, split, metrics, rows, describe)


_ANALYSES: dict[str, Callable[[TaskData, str, dict[str, float], SplitOutputs], ErrorAnalysis]] = {
    "text-classification": _analyze_classes,
    "single_label_classification": _analyze_classes,
    "multi_label_classification": _analyze_label_sets,
    "regression": _analyze_numbers,
    "token-classification": _analyze_tags,
    "joint-classification": _analyze_both,
    "text2text-generation": _analyze_texts,
}
"""Analysis of each problem type, or of each task."""


def compare_evaluations(trainer: MaskAttnTrainer, best: BestEvaluation | None) -> list[str]:
    """Return a warning if all evaluations of a run had the same score, and not the best one, so that the first was selected."""
    if best is None or best.metric == "loss" or best.averaged_steps:
        return []
    scores = [entry[f"eval_{best.metric}"] for entry in trainer.state.log_history if f"eval_{best.metric}" in entry]
    is_perfect = best.value == (1.0 if trainer.args.greater_is_better else 0.0)
    if is_perfect or len(scores) < 2 or len({*scores}) > 1:
        return []
    return [
        f"All {len(scores)} evaluations had {best.metric} {best.value:.4g}, so that the first one was selected. Train longer, "
        "or select the checkpoint with training.metric_for_best_model=loss."
    ]
