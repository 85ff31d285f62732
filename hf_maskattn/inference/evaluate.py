"""Evaluation of a model folder on a split of a recipe."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import Seq2SeqTrainingArguments

from hf_maskattn.auto import find_model_class
from hf_maskattn.checkpoints.checkpoints import write_atomically
from hf_maskattn.data.tokenizers import load_tokenizer
from hf_maskattn.inference.predict import check_output_path
from hf_maskattn.loading import load_config, load_verified_model
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.training_defaults import machine_defaults, scoring_defaults
from hf_maskattn.recipes.training_rules import check_arguments, check_training
from hf_maskattn.tasks import TASKS
from hf_maskattn.training.assembly import build_trainer
from hf_maskattn.training.error_analysis import evaluate_with_errors, is_analyzed
from hf_maskattn.training.results import RunReport
from hf_maskattn.training.task_data import SPLITS, evaluation_data
from hf_maskattn.training.train import check_launch

_EVALUATION_FIELDS = (
    *("per_device_eval_batch_size", "eval_accumulation_steps", "prediction_loss_only", "label_smoothing_factor"),
    *("predict_with_generate", "generation_max_length", "generation_num_beams"),
    *("bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32", "use_cpu", "accelerator_config"),
    *("torch_compile", "torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps"),
    *("seed", "data_seed", "full_determinism", "train_sampling_strategy"),
    *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor"),
    *("dataloader_multiprocessing_context", "dataloader_in_order", "ddp_backend", "ddp_timeout"),
    *("disable_tqdm", "log_level", "log_level_replica", "logging_nan_inf_filter", "skip_memory_metrics", "debug"),
)
"""Fields of `training` that apply without training."""


def evaluate(
    model_folder: str | Path,
    recipe: Recipe,
    split: str = "test",
    *,
    json_file: str | Path | None = None,
    errors_file: str | Path | None = None,
    overwrite: bool = False,
) -> RunReport:
    """Evaluate a model on a split.

    Args:
        model_folder: Folder of the model, or its name on the Hub.
        recipe: The recipe, for data and task, and for batch size, precision and device in `training`.
        split: "train", "validation" or "test".
        json_file: File for the metrics and the scores by class.
        errors_file: JSON Lines file for the rows with errors, the most confident errors first.
        overwrite: Whether to replace these files.

    Returns:
        The metrics of that split, equal to those of the run that trained the model, and its errors.

    Raises:
        ValueError: If there is no such split, a file exists, errors are not analyzed for the task, or model and recipe do not
            match. Also TypeError, OSError and ImportError.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    json_file = None if json_file is None else Path(json_file)
    errors_file = None if errors_file is None else Path(errors_file)
    for path in (json_file, errors_file):
        if path is not None:
            check_output_path(path, overwrite)
    if errors_file is not None and not is_analyzed(recipe.model.task):
        raise ValueError(f"errors_file must be None for {recipe.model.task}, whose errors are not analyzed.")
    if errors_file is not None and recipe.training.get("prediction_loss_only"):
        raise ValueError("errors_file must be None with training.prediction_loss_only=true, which has no predictions.")
    config = load_config(model_folder)
    _check_task(config, recipe, str(model_folder))
    with TemporaryDirectory() as scratch:
        recipe = replace(recipe, training={key: value for key, value in recipe.training.items() if key in _EVALUATION_FIELDS})
        check_training(recipe)
        settings = {**machine_defaults(), "train_sampling_strategy": "group_by_length", **scoring_defaults(recipe)}
        args = Seq2SeqTrainingArguments(**{**settings, **recipe.training}, output_dir=scratch, report_to="none")
        check_arguments(args, recipe)
        check_launch(args)
        tokenizer = load_tokenizer(model_folder)
        labels = [config.id2label[number] for number in range(config.num_labels)]
        with args.main_process_first(desc="data preparation"):
            tag_scheme = getattr(config, "tag_scheme", None)
            sequence_labels = getattr(config, "sequence_label_names", None)
            data = evaluation_data(recipe, args.seed, split, tokenizer, labels, tag_scheme, sequence_labels)
        model = load_verified_model(TASKS[recipe.model.task].auto_class.load(), model_folder, config)
        evaluation = data.encoder.build_evaluation(data)
        trainer = build_trainer(args, model, data, evaluation)
        metrics, analysis = evaluate_with_errors(trainer, split, data, evaluation)
        report = RunReport(Path(model_folder), {split: metrics}, args.process_index == 0, analysis=analysis)
        if report.is_main_process and json_file is not None:
            write_atomically(json_file, report.to_json(split) + "\n")
        if report.is_main_process and errors_file is not None and analysis is not None:
            analysis.write_errors(errors_file)
        return report


def _check_task(config, recipe: Recipe, name: str) -> None:
    """Reject a model without the head of the task, which would be initialized at random."""
    expected = find_model_class(TASKS[recipe.model.task].auto_class.load(), config).__name__
    if expected not in (config.architectures or []):
        raise ValueError(
            f"The recipe must be for the task of {name}, a {', '.join(config.architectures or ['model of unknown class'])}, "
            f"got model.task={recipe.model.task}. Use the recipe that the model was trained with."
        )
