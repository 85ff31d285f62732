"""Distillation: a Trainer whose loss compares the logits of a student with those of a teacher, which were computed before."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, concatenate_datasets
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax, mse_loss
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainingArguments

from hf_maskattn.data.collators import RowSeededCollator
from hf_maskattn.model.losses import IGNORED, classification_loss, elementwise_loss
from hf_maskattn.tasks import task_of
from hf_maskattn.training.teacher import Teacher, check_problem_type
from hf_maskattn.training.teacher_outputs import teacher_logits
from hf_maskattn.training.trainer import MaskAttnTrainer

TEACHER_LOGITS = "teacher_logits"
"""Column of a training dataset with the logits of the teacher, in the order of the labels of the student."""


@dataclass
class DistillationArguments(Seq2SeqTrainingArguments):
    """Arguments of `DistillationTrainer`: those of a Trainer, and those of the teacher and its loss."""

    temperature: float = field(
        default=3.0, metadata={"help": "Temperature of the softmax in the loss kl, which is multiplied by its square."}
    )
    alpha: float = field(
        default=0.5, metadata={"help": "Weight of the loss of the teacher. The loss of the labels has the weight 1 - alpha."}
    )
    distillation_loss: Literal["kl", "mse"] = field(
        default="kl", metadata={"help": "Loss of the teacher: kl of the probabilities, or mse of the logits."}
    )
    teacher_batch_size: int = field(default=32, metadata={"help": "Number of texts that the teacher reads at once."})
    teacher_max_length: int | None = field(
        default=None, metadata={"help": "Maximum number of tokens that the teacher reads. None for the limit of its tokenizer."}
    )
    teacher_labels: dict[str, str] | None = field(
        default=None, metadata={"help": "Names of labels of the student by names of the teacher, where they differ."}
    )
    text_column: str = field(default="text", metadata={"help": "Column of the training dataset that the teacher reads."})

    def __post_init__(self):
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be greater than 0, got {self.temperature}.")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {self.alpha}. Use Trainer to train on labels alone.")
        if self.distillation_loss not in ("kl", "mse"):
            raise ValueError(f"distillation_loss must be one of kl, mse, got {self.distillation_loss!r}.")


class DistillationTrainer(MaskAttnTrainer):
    """Trainer that distills a fine-tuned teacher into a smaller student.

    The teacher reads the training texts once, before training; its logits are kept in the cache of Hugging Face. The loss is
    `alpha * L_teacher + (1 - alpha) * L_labels`, each averaged over the rows (or tokens) of a step that have it. Rows without a
    label (-100; NaN where labels are numbers) have the loss of the teacher only. Evaluation uses labels alone. A student with a
    CRF learns the teacher's labels of each token by its emissions, and sequences of labels by the loss of the CRF.

    Args:
        model: The student, with a head for sequence or token classification.
        args: The arguments.
        teacher_model: The teacher, or its folder or Hub name. None if `train_dataset` has a column `teacher_logits`.
        teacher_processing_class: Tokenizer of the teacher. None loads it from the folder or the Hub, or, for a model, uses that
            of the student, which must then fit.
        train_dataset: Encoded rows with the texts in the column `args.text_column`, or with a column `teacher_logits`: `[C]`
            for each row, `[T, C]` for token classification, in the order of the labels of the student; NaN for tokens that the
            teacher does not label.
        **kwargs: Further keyword arguments of `Trainer`.

    Raises:
        TypeError: If `args` is not a `DistillationArguments`, or `train_dataset` is not a `datasets.Dataset`.
        ValueError: If the teacher has another task or other labels than the student, or the training rows have no texts.

    Source:
        Hinton et al. (2015), equation 2 and section 2; `mse`: Tang et al. (2019), section 3.2.
    """

    def __init__(
        self,
        model: Any,
        args: DistillationArguments,
        *,
        teacher_model: PreTrainedModel | str | None = None,
        teacher_processing_class: PreTrainedTokenizerBase | None = None,
        train_dataset: Dataset | None = None,
        **kwargs: Any,
    ):
        if not isinstance(args, DistillationArguments):
            raise TypeError(f"args must be DistillationArguments, got {type(args).__name__}. Its fields are a superset.")
        if not isinstance(train_dataset, Dataset):
            raise TypeError(
                f"train_dataset must be a datasets.Dataset, got {type(train_dataset).__name__}. The teacher reads all rows."
            )
        if TEACHER_LOGITS not in train_dataset.column_names:
            teacher = _build_teacher(model, args, teacher_model, teacher_processing_class, kwargs.get("processing_class"))
            train_dataset = _read_training_texts(train_dataset, teacher, model, args)
        super().__init__(model, args, train_dataset=train_dataset, **kwargs)
        self.data_collator = DistillationCollator(self.data_collator)
        # Both losses are divided by the numbers of their items in all batches of a step.
        self.loss_is_scaled_for_ga = True

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the logits of the teacher, which Trainer would drop silently as `forward` has no such argument."""
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns  # type: ignore[has-type]
        self._signature_columns = list(dict.fromkeys([*columns, TEACHER_LOGITS]))

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, torch.Tensor]:
        """Collect the batches of a step.

        Returns:
            The batches, and `[2]`: the number of rows or tokens in them with logits of the teacher, and with a label.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(2, device=device)
        for batch in batches:
            counts[0] += has_teacher(batch[TEACHER_LOGITS]).sum()
            if "labels" in batch:
                counts[1] += is_labeled(batch["labels"]).sum()
        if self._averages_across_processes:
            counts = self.accelerator.gather(counts[None]).sum(0)
        return batches, counts

    @property
    def _averages_across_processes(self) -> bool:
        return self.args.average_tokens_across_devices and self.args.world_size > 1

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Compute the loss of a batch: of teacher and labels in training, of labels alone in evaluation.

        Args:
            model: The student.
            inputs: Its inputs, and `teacher_logits`.
            return_outputs: Whether to return its outputs too.
            num_items_in_batch: `[2]`, from `get_batch_samples`. None counts the items of this batch.

        Returns:
            The loss, or the loss and the outputs.
        """
        inputs = dict(inputs)
        targets = inputs.pop(TEACHER_LOGITS, None)
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.pop("labels", None)
        num_targets, num_labels = (None, None) if num_items_in_batch is None else num_items_in_batch
        # A CRF has the loss of the model. Its parameters are used in every step, as DistributedDataParallel requires.
        has_crf = getattr(self.model, "crf", None) is not None
        own_loss = {"labels": labels, "num_items_in_batch": num_labels} if has_crf else {}
        outputs = model(**inputs, **own_loss)
        problem_type = _problem_type(self.model.config, outputs.logits, labels)
        if targets.shape != outputs.logits.shape:
            raise ValueError(
                f"{TEACHER_LOGITS} must have the shape of the logits of the model, {tuple(outputs.logits.shape)}, got "
                f"{tuple(targets.shape)}. Its last size is the number of labels."
            )
        kept = has_teacher(targets)
        losses = distillation_loss(
            outputs.logits[kept], targets[kept], self.args.distillation_loss, problem_type, self.args.temperature
        )
        loss = self.args.alpha * losses.sum() / (kept.sum() if num_targets is None else num_targets).clamp(min=1)
        if labels is not None and (self.args.alpha < 1 or has_crf):
            loss = loss + (1 - self.args.alpha) * self._label_loss(outputs, labels, problem_type, num_labels)
        if self._averages_across_processes and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DistributedDataParallel averages the gradients
        return (loss, outputs) if return_outputs else loss

    def _label_loss(self, outputs, labels, problem_type, num_labels) -> torch.Tensor:
        if self.compute_loss_func is not None:
            return self.compute_loss_func(outputs, labels, num_items_in_batch=num_labels)
        if outputs.get("loss") is not None:
            return outputs.loss
        if problem_type == "single_label_classification":
            if self.label_smoother is not None:
                return self.label_smoother(outputs, labels, num_items_in_batch=num_labels)
            return classification_loss(outputs.logits, labels, num_labels)
        kept = is_labeled(labels).reshape(len(labels), -1).all(-1)  # [B]
        return elementwise_loss(problem_type, outputs.logits[kept], labels[kept], num_labels)


class DistillationCollator(RowSeededCollator):
    """Collates the logits of a teacher, and leaves all other columns to another collator, which may depend on the epoch.

    Args:
        collator: Collator of the other columns. It sees no teacher logits, which collators of transformers cannot pad.
    """

    def __init__(self, collator: Any):
        self.collator = collator

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch of the other collator."""
        if isinstance(self.collator, RowSeededCollator):
            self.collator.set_epoch(epoch)

    def for_evaluation(self) -> "DistillationCollator":
        """Return a collator with the evaluation of the other collator."""
        is_seeded = isinstance(self.collator, RowSeededCollator)
        return DistillationCollator(self.collator.for_evaluation() if is_seeded else self.collator)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Any:
        """Collate rows.

        Returns:
            Outputs of the other collator, and, if the rows have logits of a teacher, `teacher_logits`: float32, `[B, C]`, or
            `[B, T, C]` with NaN at padding.

        Raises:
            ValueError: If the logits of a row have another shape than those of the first one, or are infinite.
        """
        values = [row[TEACHER_LOGITS] for row in rows if TEACHER_LOGITS in row]
        batch = self.collator([{name: value for name, value in row.items() if name != TEACHER_LOGITS} for row in rows])
        if values:
            batch[TEACHER_LOGITS] = self._collate([_parse_logits(value) for value in values], batch)
        return batch

    @staticmethod
    def _collate(rows: list[np.ndarray], batch: Any) -> torch.Tensor:
        first = rows[0]
        if any(row.ndim != first.ndim or row.shape[-1] != first.shape[-1] for row in rows):
            shapes = ", ".join(sorted({str(row.shape) for row in rows}))
            raise ValueError(
                f"{TEACHER_LOGITS} must have a number for each label in every row, got rows of the shapes {shapes}."
            )
        if first.ndim == 1:
            return torch.from_numpy(np.stack(rows))  # [B, C]
        mask = batch["attention_mask"].bool()  # [B, T]
        lengths = [len(row) for row in rows]
        if lengths != mask.sum(dim=1).tolist():
            raise ValueError(
                f"{TEACHER_LOGITS} must have numbers for each token of a row, got {lengths} for rows of "
                f"{mask.sum(dim=1).tolist()} tokens."
            )
        padded = torch.full((*mask.shape, first.shape[-1]), torch.nan)  # [B, T, C]
        padded[mask] = torch.from_numpy(np.concatenate(rows))
        return padded


def _parse_logits(value: Any) -> np.ndarray:
    """Return the logits of a row as an array `[C]` or `[T, C]`, float32."""
    with suppress(TypeError, ValueError):  # of lists of several lengths
        logits: np.ndarray = np.asarray(value, dtype=np.float32)
        if logits.ndim in (1, 2) and not np.isinf(logits).any():
            return logits
    raise ValueError(
        f"{TEACHER_LOGITS} must be a list of finite numbers, one for each label, or a list of such lists, one for each token, "
        f"got {str(value)[:60]}. NaN stands for a text or token that the teacher did not read."
    )


def distillation_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    loss: Literal["kl", "mse"],
    problem_type: str = "single_label_classification",
    temperature: float = 1.0,
) -> torch.Tensor:
    """Compare logits of a student with those of a teacher.

    Args:
        logits: `[N, C]`, logits z of the student.
        targets: `[N, C]`, logits v of the teacher.
        loss: "kl": `T^2 KL(softmax(v / T) || softmax(z / T))`; with several labels per text the mean over labels of
            `T^2 KL(sigmoid(v / T) || sigmoid(z / T))`. "mse": the mean over labels of `(v - z)^2`.
        problem_type: Problem type of the student.
        temperature: T.

    Returns:
        `[N]`, the loss of each row.

    Source:
        Hinton et al. (2015), section 2: the factor T^2 keeps the gradient comparable with the gradient of the labels.
    """
    logits, targets = logits.float(), targets.to(logits.device).float()
    if loss == "mse":
        return mse_loss(logits, targets, reduction="none").mean(-1)
    z, v = logits / temperature, targets / temperature
    if problem_type == "multi_label_classification":
        entropy = binary_cross_entropy_with_logits(v, v.sigmoid(), reduction="none")
        divergence = binary_cross_entropy_with_logits(z, v.sigmoid(), reduction="none") - entropy
        return temperature**2 * divergence.mean(-1)
    divergence = kl_div(log_softmax(z, -1), log_softmax(v, -1), reduction="none", log_target=True)
    return temperature**2 * divergence.sum(-1)


def has_teacher(logits: torch.Tensor) -> torch.Tensor:
    """Return which rows or tokens have logits of the teacher: `[..., C]` -> `[...]`, bool."""
    return ~logits.isnan().any(-1)


def is_labeled(labels: torch.Tensor) -> torch.Tensor:
    """Return which labels exist: bool, as `labels`. A missing one is -100, or NaN among numbers."""
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORED


def add_teacher_logits(dataset: Dataset, logits: np.ndarray, lengths: np.ndarray | None = None) -> Dataset:
    """Add the column `teacher_logits` to a dataset.

    Args:
        dataset: N rows.
        logits: `[N, C]`, or, with `lengths`, `[sum of lengths, C]`, float32.
        lengths: `[N]`, number of tokens of each row.

    Returns:
        The dataset with a list of C numbers in each row, or with a list of such lists.
    """
    flat = pa.array(np.ascontiguousarray(logits).reshape(-1))
    column: pa.Array = pa.FixedSizeListArray.from_arrays(flat, logits.shape[-1])
    if lengths is not None:
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        column = pa.ListArray.from_arrays(pa.array(ends), column)
    return concatenate_datasets([dataset, Dataset(pa.table({TEACHER_LOGITS: column}))], axis=1)


def _problem_type(config: Any, logits: torch.Tensor, labels: torch.Tensor | None) -> str:
    if logits.ndim == 3:
        return "single_label_classification"
    if config.problem_type is not None:
        return config.problem_type
    if logits.shape[-1] == 1:
        return "regression"
    is_multi_label = labels is not None and labels.is_floating_point()
    return "multi_label_classification" if is_multi_label else "single_label_classification"


def _build_teacher(
    model: PreTrainedModel,
    args: DistillationArguments,
    teacher_model: PreTrainedModel | str | None,
    tokenizer: PreTrainedTokenizerBase | None,
    student_tokenizer: Any,
) -> Teacher:
    task = task_of(model.config.architectures or [type(model).__name__])
    if task != "text-classification":
        raise ValueError(
            f"train_dataset must have a column {TEACHER_LOGITS!r} to distill a {type(model).__name__}: only for sequence "
            "classification the teacher reads its texts here. A recipe with the group `teacher` does for token classification."
        )
    if teacher_model is None:
        raise ValueError(
            f"teacher_model must be a model, a folder or a name on the Hub, or train_dataset must have a column "
            f"{TEACHER_LOGITS!r}, got neither."
        )
    if isinstance(teacher_model, PreTrainedModel):
        tokenizer = tokenizer or student_tokenizer
        vocab_size = teacher_model.config.vocab_size
        if tokenizer is None or (tokenizer is student_tokenizer and len(tokenizer) != vocab_size):
            raise ValueError(
                "teacher_processing_class must be the tokenizer of the teacher, got None. The tokenizer of the student does "
                f"not fit its vocabulary of {vocab_size:,} tokens."
            )
        return Teacher(teacher_model, tokenizer, teacher_model.config, task, max_length=args.teacher_max_length)
    return Teacher.from_pretrained(str(teacher_model), task, tokenizer=tokenizer, max_length=args.teacher_max_length)


def _read_training_texts(dataset: Dataset, teacher: Teacher, model: PreTrainedModel, args: DistillationArguments) -> Dataset:
    """Add the logits of a teacher for the texts of a training dataset."""
    config = model.config
    if args.text_column not in dataset.column_names:
        raise ValueError(
            f"train_dataset must have the column text_column={args.text_column!r}, which the teacher reads, got "
            f"{', '.join(dataset.column_names)}. Keep the texts when you encode them, or set text_column."
        )
    is_regression = config.num_labels == 1 and config.problem_type in (None, "regression")
    if is_regression and args.distillation_loss == "kl":
        raise ValueError("distillation_loss must be mse for regression, whose outputs are not probabilities, got kl.")
    check_problem_type(teacher.config, "regression" if is_regression else config.problem_type, teacher.name)
    labels = None if is_regression else [config.id2label[number] for number in range(config.num_labels)]
    order = teacher.label_order(labels, args.teacher_labels)
    logits = teacher_logits(teacher, dataset[args.text_column], batch_size=args.teacher_batch_size, device=args.device)
    return add_teacher_logits(dataset, logits[:, order])
