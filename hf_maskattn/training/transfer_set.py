"""The transfer set of a distillation: labeled, unlabeled and augmented texts, and the logits of the teacher for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, concatenate_datasets
from transformers import EvalPrediction, PreTrainedTokenizerBase, Seq2SeqTrainingArguments, Trainer

from hf_maskattn.data.augmentation import augment_texts, join_words
from hf_maskattn.data.encoding import encode_for_masked_lm
from hf_maskattn.data.unlabeled import remove_held_out
from hf_maskattn.metrics.task_metrics import AGREEMENT, TEACHER_PREFIX, TaskEvaluation
from hf_maskattn.model.losses import IGNORED
from hf_maskattn.recipes.arguments import TeacherArguments
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.teacher_rules import teacher_loss
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.tasks import TASKS, TaskName
from hf_maskattn.training.distillation import DistillationArguments, add_teacher_logits
from hf_maskattn.training.task_data import TaskData, held_out_texts
from hf_maskattn.training.teacher import Teacher, Words, check_problem_type
from hf_maskattn.training.teacher_outputs import teacher_logits

_DEFAULT_MASK = "[MASK]"


def load_teacher(settings: TeacherArguments, task: TaskName) -> Teacher:
    """Load the configuration and the tokenizer of the teacher of a recipe. See `Teacher.from_pretrained`."""
    try:
        return Teacher.from_pretrained(settings.model, task, max_length=settings.max_length)
    except (OSError, ValueError) as error:
        raise type(error)(f"teacher.model={settings.model}: {error}") from error


def distillation_arguments(recipe: Recipe, settings: TeacherArguments) -> Seq2SeqTrainingArguments:
    """Build the arguments of the Trainer of a recipe: those of a `DistillationTrainer` if its loss has a teacher."""
    if TASKS[recipe.model.task].generates:
        return training_arguments(recipe)
    return training_arguments(
        recipe,
        DistillationArguments,
        temperature=float(settings.temperature),
        alpha=float(settings.alpha),
        distillation_loss=teacher_loss(settings, recipe.model.problem_type),
        teacher_batch_size=settings.batch_size,
        teacher_max_length=settings.max_length,
        teacher_labels=settings.labels,
    )


class TransferSet:
    """The texts that a classifier is distilled on, and what the teacher says about them and about the other splits.

    Raises:
        ValueError: If the recipe has no teacher, the data no `raw` rows, or the labels of the teacher are others.
    """

    def __init__(self, recipe: Recipe, teacher: Teacher, data: TaskData, device: torch.device):
        if recipe.teacher is None or not data.raw:
            raise ValueError("recipe must have a teacher, and data the rows that it reads, got none.")
        self.recipe, self.teacher, self.data, self.device = recipe, teacher, data, device
        self.raw, self.settings = data.raw, recipe.teacher
        self.order = self._match_labels()

    def _match_labels(self) -> list[int]:
        """Return the position of the logit of each label of the student."""
        check_problem_type(self.teacher.config, self.recipe.model.problem_type, self.teacher.name)
        return self.teacher.label_order(self.data.labels, self.settings.labels)

    def training_split(self, seed: int) -> Dataset:
        """Encode the rows to train on: those of the train split, and further texts without labels, which the seed determines.

        Returns:
            The encoded rows, with the column `teacher_logits`.

        Raises:
            ValueError: If the file of further texts cannot be read. Likewise OSError.
        """
        rows: Any = self.data.splits["train"]  # a Dataset, because a recipe with a teacher does not stream
        texts = list(self.data.encoder.input_texts(self.raw["train"]))
        for_teacher, for_student = self._further_texts(texts, seed)
        if for_student:
            rows = concatenate_datasets([rows, self._encode_further(for_student, rows.features["labels"])])
        return add_teacher_logits(rows, self._logits([*texts, *for_teacher]))

    def score(self, trainer: Trainer, split: str, evaluation: TaskEvaluation) -> dict[str, float]:
        """Score the teacher on "validation" or "test", and compare it with the student.

        Returns:
            The metrics of the teacher with the prefix "teacher_", and "agreement": the fraction of the texts (or tokens) for
            which teacher and student predict the same. Numbers have no agreement.
        """
        dataset: Any = self.data.splits[split]
        predicted = self._predict(split, evaluation)
        values = evaluation.compute_metrics(
            EvalPrediction(predictions=_pad(predicted), label_ids=_pad(dataset["labels"]), inputs=_pad(dataset["input_ids"]))
        )
        scores = {f"{TEACHER_PREFIX}{name}": values[name] for name in evaluation.metric_names}
        if self.recipe.model.problem_type != "regression":
            by_student = trainer.predict_split(dataset, split).predictions
            scores[AGREEMENT] = self._agreement(predicted, by_student, dataset["labels"])
        return scores

    def _predict(self, split: str, evaluation: TaskEvaluation) -> list[Any]:
        """Return what the teacher predicts for each row of a split."""
        logits = torch.from_numpy(self._logits(list(self.data.encoder.input_texts(self.raw[split]))))
        return evaluation.preprocess_logits(logits, torch.empty(0)).tolist()

    def _agreement(self, by_teacher: Sequence[Any], by_student: Any, labels: Sequence[Any]) -> float:
        return float(np.mean([np.array_equal(*pair) for pair in zip(by_teacher, by_student, strict=True)]))

    def _logits(self, rows: Sequence[str | Words]) -> np.ndarray:
        """Return the logits of the teacher, in the order of the labels of the student."""
        logits = teacher_logits(self.teacher, rows, batch_size=self.settings.batch_size, device=self.device)
        return logits[:, self.order]

    def _further_texts(self, texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
        """Return the unlabeled texts of the data, and augment the train split, without the texts of other splits.

        The teacher reads the first list, and the student the second one: the same texts with the mask token of its tokenizer.
        """
        augmented = augment_texts(texts, self.recipe.data.augmentation, seed)
        new = remove_held_out(
            augmented,
            held_out_texts(self.data.encoder, self.raw),
            kind="augmented",
            to_text=lambda words: join_words(words, _DEFAULT_MASK),
        )
        for_teacher = [join_words(words, _mask_of(self.teacher.tokenizer)) for words in new]
        for_student = [join_words(words, _mask_of(self.data.tokenizer)) for words in new]
        return [*self.data.unlabeled, *for_teacher], [*self.data.unlabeled, *for_student]

    def _encode_further(self, texts: list[str], feature: Any) -> Dataset:
        """Encode texts as the rows of a labeled split, with labels of the same feature that mean none."""
        encoded: Any = encode_for_masked_lm(
            Dataset.from_dict({"text": texts}),
            self.data.tokenizer,
            text_column="text",
            max_length=self.data.encoder.max_length(self.data.tokenizer),
            name="train (further texts)",
        )
        missing: Any = IGNORED
        if self.recipe.model.problem_type == "regression":
            missing = np.nan
        elif self.recipe.model.problem_type == "multi_label_classification":
            missing = [np.nan] * len(self.data.labels or ())
        labels = Dataset.from_dict({"labels": [missing] * len(texts)}, features=Features({"labels": feature}))
        return concatenate_datasets([encoded, labels], axis=1)


def _pad(rows: Sequence[Any]) -> np.ndarray:
    """Return rows as an array, padded with -100 if they are lists of different lengths."""
    if len({len(row) if isinstance(row, list) else 1 for row in rows}) == 1:
        return np.asarray(rows)
    padded = np.full((len(rows), max(map(len, rows))), IGNORED)
    for values, row in zip(padded, rows, strict=True):
        values[: len(row)] = row
    return padded


def _mask_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token for a masked word: the mask token; for a tokenizer without one the token of an unknown word."""
    return tokenizer.mask_token or tokenizer.unk_token or _DEFAULT_MASK
