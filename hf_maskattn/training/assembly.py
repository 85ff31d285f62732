"""Puts a Trainer together: arguments, data, model, collator, metrics."""

import logging
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from datasets import Dataset
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    TrainingArguments,
    enable_full_determinism,
    set_seed,
)

from hf_maskattn.data.collators import PairCollator, RowMaskingCollator
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.loading import load_config
from hf_maskattn.metrics.task_metrics import TaskEvaluation, evaluation_for, evaluation_for_generation
from hf_maskattn.metrics.text import first_lossy_text
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.training_defaults import choose_metric
from hf_maskattn.training.callbacks import StreamPosition
from hf_maskattn.training.model_building import build_model, set_generation
from hf_maskattn.training.task_data import TaskData, training_data
from hf_maskattn.training.trainer import ReproducibleSeq2SeqTrainer, ReproducibleTrainer

logger = logging.getLogger(__name__)

_FEW_ANSWERS = 20


@dataclass(frozen=True)
class Assembly:
    """A Trainer and what it was made of.

    Args:
        trainer: The Trainer.
        data: Its data.
        evaluation: How it evaluates.
    """

    trainer: ReproducibleTrainer
    data: TaskData
    evaluation: TaskEvaluation


def assemble(recipe: Recipe, args: TrainingArguments, checkpoint: Path | None = None) -> Assembly:
    """Put the Trainer of a recipe together.

    Args:
        recipe: The recipe.
        args: Its Trainer arguments, from `training_arguments(recipe)`.
        checkpoint: Checkpoint that the training continues from, if it does.

    Returns:
        The Trainer and its parts.

    Raises:
        ValueError: If anything in the recipe does not fit the data or each other; likewise TypeError, OSError.
    """
    with args.main_process_first(desc="preparing the data"):
        data = training_data(recipe, args.seed, as_tagged=checkpoint is not None and _has_tags_of_the_data(checkpoint))
    if args.full_determinism:
        enable_full_determinism(args.seed)
    else:
        set_seed(args.seed)
    if args.process_index == 0 and data.references:
        _warn_of_changed_answers(data)
    model = build_model(recipe.model, data.tokenizer, data.labels, data.tag_scheme)
    set_generation(model, recipe, data.max_target_length)
    evaluation = evaluation_of(recipe, data)
    choose_metric(args, recipe, evaluation)
    trainer = build_trainer(
        recipe, args, model, data, evaluation, train=data.splits["train"], validation=data.splits.get("validation")
    )
    return Assembly(trainer, data, evaluation)


def evaluation_of(recipe: Recipe, data: TaskData) -> TaskEvaluation:
    """Find how the model of a recipe is evaluated on data."""
    if recipe.model.task == "text2text-generation":
        return evaluation_for_generation(recipe.data.metric, data.tokenizer, references=data.references)
    return evaluation_for(
        recipe.model.task,
        problem_type=recipe.model.problem_type,
        label_names=data.labels or (),
        tag_scheme=data.tag_scheme,
    )


def _has_tags_of_the_data(checkpoint: Path) -> bool:
    """Tell whether the labels of a model are tags as the data has them, as before there was a `tag_scheme`."""
    return getattr(load_config(checkpoint), "tag_scheme", None) is None


def _warn_of_changed_answers(data: TaskData) -> None:
    """Tell at the start that no score can be perfect, rather than leave it to be found out at the end."""
    changed = first_lossy_text(data.tokenizer, islice(chain.from_iterable((data.references or {}).values()), _FEW_ANSWERS))
    if changed is not None:
        logger.warning(
            f"The tokenizer does not give the right answer {changed[0]!r} back, it becomes {changed[1]!r}: no text that the "
            "model writes can equal it. A tokenizer of another kind may (data.tokenizer: char or bpe)."
        )


def build_trainer(
    recipe: Recipe,
    args: TrainingArguments,
    model: PreTrainedModel,
    data: TaskData,
    evaluation: TaskEvaluation,
    train: Dataset | RowStream | None = None,
    validation: Dataset | None = None,
) -> ReproducibleTrainer:
    """Build the Trainer of a task around a model and data."""
    args.include_for_metrics = [*args.include_for_metrics, *evaluation.include_for_metrics]
    trainer_class = ReproducibleSeq2SeqTrainer if recipe.model.task == "text2text-generation" else ReproducibleTrainer
    return trainer_class(
        model=model,
        args=args,
        data_collator=_collator(recipe, data, args, model),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        callbacks=[StreamPosition()] if isinstance(train, RowStream) else None,
        compute_metrics=evaluation.compute_metrics,
        preprocess_logits_for_metrics=evaluation.preprocess_logits,
    )


def _collator(recipe: Recipe, data: TaskData, args: TrainingArguments, model: PreTrainedModel):
    if recipe.model.task == "text2text-generation":
        return PairCollator(data.tokenizer, model=model)
    if recipe.model.task == "fill-mask":
        return RowMaskingCollator(data.tokenizer, mlm_probability=recipe.data.mlm_probability, seed=args.seed)
    if recipe.model.task == "token-classification":
        return DataCollatorForTokenClassification(data.tokenizer)
    return DataCollatorWithPadding(data.tokenizer)
