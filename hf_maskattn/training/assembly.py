"""Builds the model and the Trainer of a recipe, and summarizes them."""

import logging
import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
    enable_full_determinism,
    set_seed,
)
from transformers.trainer_pt_utils import get_model_param_count

from hf_maskattn.auto import find_model_class, register
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.embeddings.loading import EmbeddingsReport, load_embeddings, open_embeddings
from hf_maskattn.loading import (
    Shapes,
    build_meta_model,
    check_weights_match,
    list_differing_weights,
    load_config,
    load_verified_model,
    weight_shapes,
)
from hf_maskattn.metrics.task_metrics import TaskEvaluation
from hf_maskattn.metrics.text import first_lossy_text
from hf_maskattn.recipes.arguments import ModelArguments
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.training_defaults import complete_schedule, select_best_metric
from hf_maskattn.recipes.training_rules import replace_arguments, steps_per_epoch
from hf_maskattn.tasks import TASKS
from hf_maskattn.training.callbacks import StreamPosition
from hf_maskattn.training.class_weights import WeightedLoss, build_weighted_loss
from hf_maskattn.training.distillation import DistillationArguments, DistillationTrainer
from hf_maskattn.training.rdrop import RDropCollator, RDropLoss
from hf_maskattn.training.task_data import TaskData, training_data
from hf_maskattn.training.task_transfer_sets import build_transfer_set
from hf_maskattn.training.trainer import MaskAttnTrainer
from hf_maskattn.training.transfer_set import TransferSet, load_teacher

logger = logging.getLogger(__name__)

_NUM_REFERENCES_TO_CHECK = 20


@dataclass(frozen=True)
class Assembly:
    """A Trainer and its parts.

    Attributes:
        trainer: The Trainer.
        data: Its data.
        evaluation: Its metrics.
        transfer_set: What the model is distilled on. None without a teacher.
        embeddings: What was loaded into the embeddings of the model. None if they are random or those of a checkpoint.
    """

    trainer: MaskAttnTrainer
    data: TaskData
    evaluation: TaskEvaluation
    transfer_set: TransferSet | None = None
    embeddings: EmbeddingsReport | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.data.encoder.recipe

    @cached_property
    def train_labels(self) -> np.ndarray | None:
        """All labels of the train split: `[N]`, or `[N, num_labels]` for several labels per text. None without labels."""
        split = self.data.splits["train"]
        has_labels = TASKS[self.recipe.model.task].label_column is not None
        if not (has_labels and isinstance(split, Dataset) and "labels" in split.column_names):
            return None
        labels = np.concatenate([np.atleast_1d(value) for value in split["labels"] if value != []])
        is_multi = self.recipe.model.problem_type == "multi_label_classification"
        return labels.reshape(-1, len(self.data.labels or ())) if is_multi else labels


def assemble(
    recipe: Recipe, args: Seq2SeqTrainingArguments, checkpoint: Path | None = None, data: TaskData | None = None
) -> Assembly:
    """Load the data, build the model and the Trainer of a recipe.

    Args:
        recipe: The recipe.
        args: Its Trainer arguments, from `training_arguments(recipe)`.
        checkpoint: Checkpoint that training will resume from.
        data: The data of the recipe. None loads it.

    Returns:
        The Trainer and its parts.

    Raises:
        ValueError: If the data does not fit the recipe, or fields of the recipe contradict each other. Likewise TypeError,
            OSError.
    """
    # Checkpoints of version 0.1 did not record a tag scheme: the tags of the data are their labels.
    as_tagged = checkpoint is not None and getattr(load_config(checkpoint), "tag_scheme", None) is None
    embeddings = recipe.model.embeddings if checkpoint is None else None  # a checkpoint has trained ones
    # An error in the teacher is reported before data is loaded.
    teacher = None if recipe.teacher is None else load_teacher(recipe.teacher, recipe.model.task)
    with args.main_process_first(desc="preparing the data"):
        if embeddings is not None:
            config = TASKS[recipe.model.task].config_class.load()(**recipe.model.config)
            open_embeddings(embeddings, config.embedding_size, kind=recipe.model.embeddings_kind)
        if data is None:
            data = training_data(recipe, args.seed, as_tagged=as_tagged, saved_tokenizer=checkpoint)
    transfer_set = None
    if teacher is not None:
        # Not within `main_process_first`, whose timeout is shorter than the work of a teacher may be.
        transfer_set = build_transfer_set(recipe, teacher, data, args.device)
        data = replace(data, splits={**data.splits, "train": transfer_set.training_split(args.seed)})
    if isinstance(data.splits["train"], Dataset):
        args = complete_schedule(args, recipe, data.splits["train"].num_rows)
    if args.full_determinism:
        enable_full_determinism(args.seed)
    else:
        set_seed(args.seed)
    if args.process_index == 0 and data.references:
        _check_references_round_trip(data)
    model = build_model(recipe.model, data.tokenizer, data.labels, data.tag_scheme, data.sequence_labels)
    report = None
    if embeddings is not None:
        with args.main_process_first(desc="loading the embeddings"):
            report = load_embeddings(model, data.tokenizer, embeddings, kind=recipe.model.embeddings_kind, device=args.device)
    if data.max_target_length is not None:
        set_generation(model, recipe, data.max_target_length)
    evaluation = data.encoder.build_evaluation(data)
    args = select_best_metric(args, recipe, evaluation)
    splits, weights = data.splits, recipe.training.get("class_weights")
    if getattr(model.config, "use_crf", False):
        _check_crf(recipe, data.tag_scheme)
    if recipe.training.get("rdrop_alpha"):
        _check_dropout(model.config, recipe.training["rdrop_alpha"])
    trainer = build_trainer(
        args,
        model,
        data,
        evaluation,
        train=splits["train"],
        validation=splits.get("validation"),
        freeze_embeddings=recipe.model.freeze_embeddings,
        embeddings_learning_rate=recipe.model.embeddings_learning_rate,
        training_loss=None if weights is None else build_weighted_loss(recipe, data, args.label_smoothing_factor),
        rdrop_alpha=recipe.training.get("rdrop_alpha", 0),
    )
    return Assembly(trainer, data, evaluation, transfer_set, report)


def _check_crf(recipe: Recipe, tag_scheme: str | None) -> None:
    for key in ("class_weights", "rdrop_alpha"):
        value = recipe.training.get(key)
        if value:
            raise ValueError(f"training.{key}={value} is not supported with a CRF (model.use_crf=true). Remove it.")
    if tag_scheme == "none":
        logger.warning(
            "The tags belong to no scheme, so that the CRF allows all transitions. If they mark entities, set data.tag_scheme."
        )


def _check_dropout(config: PreTrainedConfig, rdrop_alpha: float) -> None:
    names = ("embedding_dropout_prob", "hidden_dropout_prob", "attention_dropout_prob", "classifier_dropout")
    if not any(getattr(config, name, None) for name in names):
        raise ValueError(
            f"training.rdrop_alpha={rdrop_alpha} has no effect without dropout, got 0 for {', '.join(names)}. Set one of them "
            "in the group model, or remove training.rdrop_alpha."
        )


def _check_references_round_trip(data: TaskData) -> None:
    """Log a warning if the tokenizer cannot reproduce a reference text, so that no score can be perfect."""
    texts = chain.from_iterable((data.references or {}).values())
    changed = first_lossy_text(data.tokenizer, islice(texts, _NUM_REFERENCES_TO_CHECK))
    if changed is not None:
        logger.warning(
            f"The tokenizer cannot reproduce the reference {changed[0]!r}, which becomes {changed[1]!r}, so that no generated "
            "text can equal it. Another kind of tokenizer may (data.tokenizer: char or bpe)."
        )


def build_trainer(
    args: Seq2SeqTrainingArguments,
    model: PreTrainedModel,
    data: TaskData,
    evaluation: TaskEvaluation,
    train: Dataset | RowStream | None = None,
    validation: Dataset | None = None,
    rdrop_alpha: float = 0,
    **settings: Any,
) -> MaskAttnTrainer:
    """Build the Trainer for a model and encoded data. `settings` are further arguments of `MaskAttnTrainer`."""
    trainer_class = DistillationTrainer if isinstance(args, DistillationArguments) else MaskAttnTrainer
    collator = data.encoder.build_collator(data.tokenizer, model, args.seed)
    if rdrop_alpha:
        collator = RDropCollator(collator)
        loss = settings["training_loss"] or WeightedLoss(label_smoothing=args.label_smoothing_factor)
        settings["training_loss"] = RDropLoss(rdrop_alpha, loss)
    return trainer_class(
        model=model,
        args=replace_arguments(args, include_for_metrics=[*args.include_for_metrics, *evaluation.include_for_metrics]),
        data_collator=collator,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        callbacks=[StreamPosition()] if isinstance(train, RowStream) else None,
        compute_metrics=evaluation.compute_metrics,
        preprocess_logits_for_metrics=evaluation.preprocess_logits,
        num_labels=None if data.labels is None else len(data.labels),
        num_sequence_labels=None if data.sequence_labels is None else len(data.sequence_labels),
        **settings,
    )


def check_model(arguments: ModelArguments) -> None:
    """Check the configuration of a new model before data is loaded, except the sizes of a pretrained model.

    Raises:
        ValueError: If a field has an invalid value, fields contradict each other, or the pretrained model is of another type.
        OSError: If there is no such pretrained model.
    """
    if arguments.pretrained is not None:
        _load_pretrained_config(arguments)
        return
    try:
        TASKS[arguments.task].config_class.load()(**arguments.config)
    except StrictDataclassError as error:
        raise ValueError(f"model.{error.__cause__}") from error


def build_model(
    arguments: ModelArguments,
    tokenizer: PreTrainedTokenizerBase,
    labels: list[str] | None,
    tag_scheme: str | None = None,
    sequence_labels: list[str] | None = None,
) -> PreTrainedModel:
    """Build a model with random weights, or load `pretrained` weights with a new head if the tasks differ.

    Args:
        arguments: The group `model` of a recipe.
        tokenizer: The tokenizer.
        labels: Names of the labels by id. None for regression and for tasks without labels.
        tag_scheme: Tag scheme of the data, for the configuration.
        sequence_labels: Names of the labels of sequences by id, for joint classification.

    Returns:
        The model.

    Raises:
        ValueError: If fields contradict each other or the pretrained weights, or the weights are damaged or not safetensors.
        OSError: If there is no such pretrained model.
    """
    task = TASKS[arguments.task]
    auto_class, config_class = task.auto_class.load(), task.config_class.load()
    settings = {**arguments.config, **_label_fields(arguments, labels)}
    if hasattr(config_class, "tag_scheme"):
        settings |= {"tag_scheme": tag_scheme, "sequence_label_names": sequence_labels}
    if arguments.pretrained is None:
        register()
        config = config_class(**settings, **_vocabulary_fields(tokenizer, generates=task.generates))
        return find_model_class(auto_class, config)._from_config(config)
    pretrained = _load_pretrained_config(arguments)
    shapes = weight_shapes(arguments.pretrained)
    encoder = _describe_encoder(pretrained, shapes, arguments)
    check_weights_match(encoder, shapes, arguments.pretrained)
    config = load_config(arguments.pretrained, **settings)
    different = list_differing_weights(encoder, _describe_encoder(config, shapes, arguments))
    if different:
        raise ValueError(
            f"the recipe must keep the sizes of model.pretrained={arguments.pretrained}, got other sizes of "
            f"{', '.join(different)}. Remove {', '.join(f'model.{key}' for key in arguments.config)}."
        )
    # Only the head of another task or of other labels is initialized. All other weights must fit.
    return load_verified_model(auto_class, arguments.pretrained, config, new_head=True)


def _load_pretrained_config(arguments: ModelArguments) -> PreTrainedConfig:
    """Load the configuration of `model.pretrained`, and check that the model is of the type of the task."""
    config = load_config(str(arguments.pretrained))
    model_type = TASKS[arguments.task].config_class.load().model_type
    if config.model_type != model_type:
        raise ValueError(
            f"model.pretrained must be a {model_type!r} model with model.task={arguments.task}, got {arguments.pretrained}, a "
            f"{config.model_type!r} model."
        )
    return config


def _label_fields(arguments: ModelArguments, labels: list[str] | None) -> dict[str, Any]:
    if TASKS[arguments.task].label_column is None:
        return {}
    if labels is None:
        return {"num_labels": 1, "problem_type": arguments.problem_type}
    fields: dict[str, Any] = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    if "problem_type" in TASKS[arguments.task].model_keys:
        fields["problem_type"] = arguments.problem_type or "single_label_classification"
    return fields


def _vocabulary_fields(tokenizer: PreTrainedTokenizerBase, *, generates: bool) -> dict[str, int | None]:
    fields = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if generates:
        start = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        fields |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        fields["decoder_start_token_id"] = start
    return fields


def _describe_encoder(config: PreTrainedConfig, shapes: Shapes, arguments: ModelArguments) -> PreTrainedModel:
    """Build the model without its head on the meta device."""
    return build_meta_model(find_model_class(AutoModel, config), config, shapes, str(arguments.pretrained))


def set_generation(model: PreTrainedModel, recipe: Recipe, max_target_length: int) -> None:
    """Set the generation config of a model to the settings that it is evaluated with, so that `generate()` uses them.

    The maximum length of a target is in tokens, its end included.
    """
    max_length, num_beams = recipe.training.get("generation_max_length"), recipe.training.get("generation_num_beams")
    # The token that the decoder starts from counts.
    model.generation_config.max_length = max_target_length + 1 if max_length is None else max_length
    model.generation_config.num_beams = 1 if num_beams is None else num_beams


class RunSummary(dict[str, str]):
    """What a run trains, on what and how, as texts by name: aligned lines, or a table for rich."""

    def __str__(self) -> str:
        """Return a line for each text."""
        width = max(map(len, self)) + 2
        return "\n".join(f"{name:<{width}}{text}" for name, text in self.items())

    def __rich__(self) -> Any:
        """Return a table for a terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False)
        for name, text in self.items():
            table.add_row(Text(name, style="bold"), Text(text))
        return table


def summarize(assembly: Assembly) -> RunSummary:
    """Summarize a run before it trains: task, model, data, training, device and output folder.

    Every fact is stated once.
    """
    data, args, recipe = assembly.data, assembly.trainer.args, assembly.recipe
    source = recipe.data.name or recipe.data.source or recipe.data.train_file
    tokenizer = recipe.data.tokenizer or recipe.model.pretrained or recipe.model.embeddings
    summary = RunSummary(
        task=_describe_task(assembly),
        model=_describe_model(assembly),
        data=f"{source}: {', '.join(f'{name} {_count_rows(split)}' for name, split in data.splits.items())}",
        tokenizer=f"{tokenizer}, {len(data.tokenizer):,} tokens",
    )
    if data.unknown:
        shares = (f"{name} {count / max(1, total):.2%}" for name, (count, total) in data.unknown.items())
        summary["unknown tokens"] = " ".join([f"{', '.join(shares)}.", data.unknown_advice or ""]).rstrip(". ")
    if data.truncated:
        summary["truncated"] = "; ".join(
            f"{found.rows:,} of {found.num_rows:,} rows in {found.split} ({found.tokens:,} tokens beyond "
            f"data.{found.key}={found.limit})"
            for found in data.truncated
        )
    if assembly.embeddings is not None:
        summary["embeddings"] = str(assembly.embeddings).rstrip(".")
    if recipe.teacher is not None:
        summary["teacher"] = recipe.teacher.model
    summary |= _describe_training(assembly.trainer)
    summary["output"] = args.output_dir
    return summary


def _describe_task(assembly: Assembly) -> str:
    task, labels, names = TASKS[assembly.recipe.model.task].recipe_name, assembly.train_labels, assembly.data.labels
    if names is None:
        return task
    description = f"{task}, {len(names):,} labels"
    if assembly.data.sequence_labels is not None:
        description = f"{task}, {len(assembly.data.sequence_labels):,} labels of texts, {len(names):,} labels of tokens"
    if labels is None:
        return description
    counts = (labels > 0).sum(0) if labels.ndim > 1 else np.bincount(labels[labels >= 0].astype(np.int64), minlength=len(names))
    total = len(labels) if labels.ndim > 1 else counts.sum()
    return f"{description} (the largest, {names[counts.argmax()]}, has {counts.max() / max(1, total):.1%})"


def _describe_model(assembly: Assembly) -> str:
    model = assembly.trainer.model
    embeddings = sum(weight.numel() for weight in {*model.get_input_embeddings().parameters()})
    source = assembly.recipe.model.pretrained
    return (
        f"{type(model).__name__} with {get_model_param_count(model):,} parameters, {embeddings:,} of them embeddings"
        f"{'' if source is None else f', from {source}'}"
    )


def _count_rows(split: Dataset | RowStream) -> str:
    return "(a stream)" if isinstance(split, RowStream) else f"{split.num_rows:,} rows"


def _describe_training(trainer: MaskAttnTrainer) -> dict[str, str]:
    """Describe the schedule, the device and the seed, with the values of the recipe and the defaults."""
    args, split = trainer.args, trainer.train_dataset
    steps, length = args.max_steps, ""
    if not isinstance(split, RowStream):
        in_epoch = steps_per_epoch(args, len(split))
        steps = steps if steps > 0 else math.ceil(args.num_train_epochs * in_epoch)
        length = f" ({steps / in_epoch:.3g} epochs)"
    rows_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    warmup = args.get_warmup_steps(steps)
    device = str(args.device)
    if args.device.type == "cuda":  # others may have no name
        device += f" ({torch.cuda.get_device_name(args.device)})"
    processes = f", {args.world_size} processes" if args.world_size > 1 else ""
    return {
        "training": f"{steps:,} steps{length} of {rows_per_step} rows, weight decay {args.weight_decay:g}",
        "learning rate": f"{args.learning_rate:g}, {args.lr_scheduler_type.value}, {warmup:,} warmup steps",
        "device": f"{device}{processes}, {precision}, seed {args.seed}",
    }
