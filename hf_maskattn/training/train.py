"""Trains a recipe: checks the machine and the output folder, trains or resumes, evaluates, and writes the results."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import Seq2SeqTrainingArguments, Trainer, TrainingArguments

from hf_maskattn.checkpoints.checkpoints import (
    clean_checkpoints,
    find_last_complete_checkpoint,
    find_resume_checkpoint,
    incomplete_folder_error,
    is_write_error,
    list_checkpoints,
    write_atomically,
)
from hf_maskattn.checkpoints.run_folder import (
    RECIPE_FILE,
    STATE_FILE,
    is_finished,
    lock_run_folder,
    mark_finished,
    mark_unfinished,
    remove_run,
    require_empty,
    require_run,
)
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.hub.publish import make_repository
from hf_maskattn.metrics.classification import prior_loss
from hf_maskattn.model.losses import IGNORED
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.training_defaults import (
    changed_keys,
    resolved_training,
    resumed_recipe,
    save_recipe,
    training_arguments,
)
from hf_maskattn.recipes.training_rules import replace_arguments
from hf_maskattn.training.assembly import Assembly, assemble, check_model, summarize
from hf_maskattn.training.callbacks import (
    KeepTrackOfBest,
    ProgressLines,
    SaveAtEpochEnd,
    StopEarly,
    StopOnInterrupt,
    TrainingInterrupted,
)
from hf_maskattn.training.error_analysis import ErrorAnalysis, compare_evaluations, evaluate_with_errors
from hf_maskattn.training.publication import HubTarget, PublishEverySave, publish_run
from hf_maskattn.training.results import BestEvaluation, RunReport, example_text, measure_attention, write_card
from hf_maskattn.training.trainer import MaskAttnTrainer
from hf_maskattn.training.transfer_set import distillation_arguments

logger = logging.getLogger(__name__)


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> RunReport:
    """Train and evaluate the model of a recipe, and write the results to its output folder.

    Args:
        recipe: The recipe.
        resume: Whether to continue the run in the folder from its last complete checkpoint.
        overwrite: Whether to replace the run in the folder.

    Returns:
        Folder and metrics of the model.

    Raises:
        ValueError: If the folder is not empty and neither `resume` nor `overwrite` is set, it does not hold a run, another
            process is using it, or the recipe is invalid. Likewise TypeError, OSError, ImportError.
        TrainingInterrupted: If Ctrl-C was pressed. The run can be resumed.
        NotPublished: If the run is finished, but could not be published.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite are mutually exclusive.")
    if recipe.training.get("seeds") is not None:
        from hf_maskattn.training.seeds import train_seeds

        return train_seeds(recipe, resume=resume, overwrite=overwrite)
    stored = Path(resolved_training(recipe)["output_dir"]) / RECIPE_FILE
    if resume and stored.is_file():
        recipe = resumed_recipe(recipe, stored)
    args = build_arguments(recipe)
    check_model(recipe.model)
    check_launch(args)
    warn_of_busy_cores(args)
    target = None
    if args.push_to_hub:
        # Trainer would upload the whole output folder, with pickles, in the background, and would not report failures.
        target, args = HubTarget.from_arguments(args), replace_arguments(args, push_to_hub=False)
    folder = Path(args.output_dir)
    with lock_run_folder(folder) if args.process_index == 0 else nullcontext():
        return _train(recipe, args, folder, target, resume=resume, overwrite=overwrite)


def build_arguments(recipe: Recipe) -> Seq2SeqTrainingArguments:
    """Build the arguments of the Trainer of a recipe, with those of its teacher."""
    return training_arguments(recipe) if recipe.teacher is None else distillation_arguments(recipe, recipe.teacher)


def _train(
    recipe: Recipe, args: TrainingArguments, folder: Path, target: HubTarget | None, *, resume: bool, overwrite: bool
) -> RunReport:
    is_main = args.process_index == 0
    with args.main_process_first(local=False, desc="checking the output folder"):
        if is_main:
            check_folder(folder, recipe, resume=resume, overwrite=overwrite)
        if resume and is_run_complete(folder, recipe):
            return RunReport.load(folder, is_main_process=is_main)
        checkpoint = checkpoint_to_resume(folder, recipe) if resume else None
    if target is not None and is_main:
        # Created before training, to report missing permissions early.
        target = replace(target, repo_id=make_repository(target.repo_id, target.private))
    assembly = assemble(recipe, args, checkpoint)
    _check_full_batch(assembly.trainer)
    if recipe.model.pretrained is None and args.max_steps <= 0:
        # The default depends on the number of rows.
        recipe = replace(recipe, training={**recipe.training, "num_train_epochs": assembly.trainer.args.num_train_epochs})
    warnings = assembly.data.list_warnings()
    logger.log(logging.WARNING if warnings else logging.INFO, summarize(assembly))
    if is_main:
        # Only now: an error in the recipe must not delete the run that it would replace.
        if overwrite:
            remove_run(folder)
        mark_unfinished(folder)
        save_recipe(recipe, folder / RECIPE_FILE)
    with explain_failure(assembly.trainer, folder):
        metrics = {"train": _fit(assembly, checkpoint, target)}
        best = BestEvaluation.find(assembly.trainer)
        if recipe.training.get("average_checkpoints") is not None:
            from hf_maskattn.training.averaging import use_average_if_better

            best = use_average_if_better(assembly.trainer, recipe.training["average_checkpoints"], best)
        analysis = None  # of the last split
        for split in ("validation", "test"):
            if split in assembly.data.splits:
                metrics[split], analysis = evaluate_with_errors(assembly.trainer, split, assembly.data, assembly.evaluation)
                if assembly.transfer_set is not None:
                    metrics[split] |= assembly.transfer_set.score(assembly.trainer, split, assembly.evaluation)
        report = write_results(assembly, recipe, folder, metrics, best, analysis)
    warnings += compare_evaluations(assembly.trainer, best)
    if assembly.transfer_set is None:  # the loss of a teacher has another scale
        warnings += _compare_with_prior_loss(assembly)
    for warning in warnings:
        logger.warning(warning)
    return report if target is None or not is_main else publish_run(report, target)


_NOTHING_LEARNED = 0.95
"""Ratio of a loss to the loss of the label frequencies, above which the model has learned next to nothing."""


def _compare_with_prior_loss(assembly: Assembly) -> list[str]:
    """Return a warning if the training loss of a classifier ended where the frequencies of the labels alone would end."""
    trainer, labels = assembly.trainer, assembly.train_labels
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if labels is None or not losses or trainer.training_loss is not None:  # class weights change the scale
        return []
    prior = prior_loss(labels, assembly.recipe.model.problem_type, trainer.args.label_smoothing_factor)
    split = assembly.data.splits["train"]
    if isinstance(split, Dataset) and "sequence_labels" in split.column_names:
        # Both losses are divided by the number of labels of tokens.
        share = split.num_rows / max(1, (labels != IGNORED).sum())
        prior += share * prior_loss(np.asarray(split["sequence_labels"]), None)
    if prior > 0 and losses[-1] > _NOTHING_LEARNED * prior:
        constant = "mean" if assembly.recipe.model.problem_type == "regression" else "frequencies of the labels"
        return [
            f"The training loss ended at {losses[-1]:.3f}, where predicting the {constant} for any text gives {prior:.3f}: the "
            f"model has learned next to nothing. Try another training.learning_rate (here "
            f"{trainer.args.learning_rate:g}; 2e-3 is usual for a model from scratch) or more training.num_train_epochs, and "
            "check that the labels of the data belong to its texts."
        ]
    return []


def _fit(assembly: Assembly, checkpoint: Path | None, target: HubTarget | None) -> dict[str, float]:
    """Run the Trainer, and return the metrics of the train split."""
    trainer, stop = assembly.trainer, StopOnInterrupt()
    ProgressLines.replace_default(trainer, next(iter(assembly.evaluation.metric_names), None))
    for callback in (stop, SaveAtEpochEnd(), KeepTrackOfBest()):
        trainer.add_callback(callback)
    patience = assembly.recipe.training.get("early_stopping_patience")
    if patience is not None:
        trainer.add_callback(StopEarly(patience))
    if target is not None and target.at_every_save:
        trainer.add_callback(PublishEverySave(target))
    started = time.perf_counter()
    with stop.handle_interrupts():
        try:
            values = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint)).metrics
        except TrainingInterrupted:
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            raise
    if stop.requested:
        # Ctrl-C came after the last step. The evaluation is left to the resumed run.
        last = find_resume_checkpoint(Path(trainer.args.output_dir))
        if last is not None:
            raise TrainingInterrupted(last)
    metrics = {"steps": float(trainer.state.global_step)}
    if not isinstance(trainer.train_dataset, RowStream):
        metrics["epochs"] = float(trainer.state.epoch or 0)
    first_step = int(checkpoint.name.rpartition("-")[2]) if checkpoint is not None else 0
    if trainer.state.global_step > first_step:
        metrics["loss"] = values["train_loss"]
        metrics["runtime"] = time.perf_counter() - started
        metrics["samples_per_second"] = values["train_samples_per_second"]
    return metrics


def check_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Check the output folder of a run, which is resumed, replaced or new, before anything expensive is done.

    Raises:
        ValueError: If a new run would get a folder that is not empty, the folder has no run to resume or replace, or a run
            would be resumed with another model or other data.
    """
    if not (resume or overwrite):
        require_empty(folder)
        return
    require_run(folder)
    has_seeds = recipe.training.get("seeds") is not None
    if has_seeds and (list_checkpoints(folder) or (folder / STATE_FILE).is_file()):
        raise ValueError(f"{folder} has a run with one seed. Choose another folder with training.output_dir=FOLDER.")
    if not has_seeds and any(folder.glob(f"seed-*/{RECIPE_FILE}")):
        raise ValueError(f"{folder} has runs of several seeds. Set training.seeds, or another training.output_dir.")
    if resume and (folder / RECIPE_FILE).is_file():
        for key, (old, new) in changed_keys(recipe, folder / RECIPE_FILE).items():
            if not key.startswith("training."):
                raise ValueError(
                    f"{key} must be {old!r}, as in the run in {folder}, got {new!r}. Resume with {folder / RECIPE_FILE}, or "
                    "replace the run with --overwrite."
                )


def is_run_complete(folder: Path, recipe: Recipe) -> bool:
    """Return whether a run is finished and its recipe has not changed.

    Raises:
        ValueError: If the model of the finished run is damaged.
    """
    stored = folder / RECIPE_FILE
    if not (is_finished(folder) and stored.is_file()) or changed_keys(recipe, stored):
        return False
    logger.info(f"The run in {folder} is already finished.")
    return True


def checkpoint_to_resume(folder: Path, recipe: Recipe) -> Path | None:
    """Find the last complete checkpoint, from which a run resumes; None to start from the beginning. Log changes of its recipe.

    Raises:
        ValueError: If the complete checkpoints have no optimizer state, or a finished run has none.
    """
    stored = folder / RECIPE_FILE
    for key, (old, new) in (changed_keys(recipe, stored) if stored.is_file() else {}).items():
        logger.warning(f"{key} changes from {old!r} to {new!r}.")
    checkpoint = find_resume_checkpoint(folder)
    if checkpoint is None and is_finished(folder):
        raise ValueError(
            f"the finished run in {folder} cannot be trained further, because it has no checkpoint "
            f"(training.keep_checkpoints=none removes them). Train from its weights with model.pretrained={folder} in another "
            "folder, or replace it with --overwrite."
        )
    if checkpoint is None:
        logger.warning(f"There is no checkpoint in {folder} to resume from. Training starts from the beginning.")
    else:
        logger.info(f"Resuming from {checkpoint}.")
    return checkpoint


@contextmanager
def explain_failure(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Save the log of a run that fails to its folder, and add to the error what can be resumed."""
    try:
        yield
    except TrainingInterrupted:
        raise
    except Exception as error:
        if trainer.is_world_process_zero():
            with suppress(OSError):  # the disk may be full
                _write_state(trainer, folder)
        last = find_last_complete_checkpoint(folder)
        error.add_note(
            "No checkpoint was saved: --resume starts from the beginning."
            if last is None
            else f"The last checkpoint is {last}: continue from it with --resume."
        )
        raise


def write_results(
    assembly: Assembly,
    recipe: Recipe,
    folder: Path,
    metrics: dict[str, dict[str, float]],
    best: BestEvaluation | None,
    analysis: ErrorAnalysis | None,
) -> RunReport:
    """Write log, card, metrics, errors and model to the folder of a run, mark it as finished, and remove checkpoints.

    Args:
        assembly: The Trainer and its data.
        recipe: The recipe.
        folder: The output folder.
        metrics: Values by metric name, by split.
        best: The evaluation that selected the weights. None if they are the last ones.
        analysis: The errors on a split. None for a task without an analysis.

    Raises:
        OSError: If a file could not be written. The checkpoints are not affected.
    """
    trainer, is_main = assembly.trainer, assembly.trainer.is_world_process_zero()
    report = RunReport(folder, metrics, is_main, best=best, example=example_text(assembly), analysis=analysis)
    if is_main:
        _write_state(trainer, folder)
        report = replace(report, attention=measure_attention(assembly))
        write_card(assembly, recipe, report)
        report.save()
        if analysis is not None:
            analysis.write_files(folder)
    try:
        trainer.save_model()
    except Exception as error:
        if is_write_error(error):
            raise incomplete_folder_error(folder, error) from error
        raise
    if is_main:
        mark_finished(folder)
        kept = trainer.state.best_model_checkpoint
        clean_checkpoints(folder, resolved_training(recipe)["keep_checkpoints"], None if kept is None else Path(kept))
    return report


def _write_state(trainer: Trainer, folder: Path) -> None:
    write_atomically(folder / STATE_FILE, json.dumps(asdict(trainer.state), indent=2, sort_keys=True) + "\n")


def _check_full_batch(trainer: MaskAttnTrainer) -> None:
    """Check that an epoch has at least one batch if incomplete batches are dropped."""
    args = trainer.args
    rows_per_step = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and not isinstance(trainer.train_dataset, RowStream):
        rows = len(trainer.train_dataset)
        if rows < rows_per_step:
            raise ValueError(
                f"training.dataloader_drop_last=true needs at least one full batch of {rows_per_step} rows "
                f"(training.per_device_train_batch_size={args.per_device_train_batch_size}, {args.world_size} processes), got "
                f"{rows} rows in the train split. Set a smaller batch size, or training.dataloader_drop_last=false."
            )


_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


def check_launch(args: TrainingArguments) -> None:
    """Check that the processes of a launch train together, when the arguments of the Trainer have initialized their group.

    Raises:
        ValueError: If several processes would each train alone, a model would silently not be sharded on CPUs, or sharded
            weights would not be gathered at the end.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and args.world_size == 1:
        raise ValueError(
            f"training.use_cpu must be true to train with {started} processes without accelerators. Otherwise each process "
            "would train alone."
        )
    for variable, name in _SHARDED.items():
        if _is_set(variable) and args.device.type == "cpu":
            raise ValueError(f"{name} is not supported on CPUs, where accelerate does not shard models. Launch without it.")
    if _is_set("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_STATE_DICT_TYPE", "").startswith("SHARDED"):
        raise ValueError(
            "fsdp_state_dict_type must be FULL_STATE_DICT, got SHARDED_STATE_DICT, which from_pretrained cannot load. Launch "
            "with --fsdp_state_dict_type FULL_STATE_DICT, or set it in the configuration file of accelerate."
        )
    if started == 1 and "MASTER_PORT" in os.environ and _is_set("ACCELERATE_USE_CPU"):
        logger.warning(
            "accelerate launch --cpu started a single process, because it needs mpirun for several (--mpirun_hostfile). To "
            "start them without mpirun: accelerate launch --multi_gpu --num_processes N ... training.use_cpu=true"
        )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"


_OWN_LOAD = 0.75
"""Load that this process has caused so far by importing libraries, and that an idle machine has anyway."""


def warn_of_busy_cores(args: TrainingArguments) -> None:
    """Log a warning if other processes use the cores of the threads of this run. Each step waits for the slowest thread."""
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    if args.device.type != "cpu" or threads == 1 or not hasattr(os, "getloadavg"):
        return
    load = os.getloadavg()[0]
    if load > cores - threads + _OWN_LOAD:
        idle = max(1, int(cores - load))
        logger.warning(
            f"This machine has {cores} cores and a load of {load:.1f}. Training uses {threads} threads, which wait for each "
            f"other in every step. OMP_NUM_THREADS={idle} may be several times faster while other processes are running."
        )
