"""Trains a recipe: from an empty folder to a model with its tokenizer, scores, recipe and card."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from enum import Enum
from pathlib import Path

from transformers import Trainer, TrainingArguments

from hf_maskattn.checkpoints.checkpoints import (
    find_last_complete_checkpoint,
    find_resume_checkpoint,
    is_write_error,
    write_atomically,
)
from hf_maskattn.checkpoints.run_folder import (
    METRICS_FILE,
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
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.training_defaults import changed_keys, save_recipe, training_arguments
from hf_maskattn.training.assembly import Assembly, assemble
from hf_maskattn.training.callbacks import KeepTrackOfBest, SaveAtEpochEnd, StopOnInterrupt, TrainingInterrupted
from hf_maskattn.training.launch import check_launch, warn_of_busy_cores
from hf_maskattn.training.model_building import check_model
from hf_maskattn.training.publishing import HubTarget, PublishEverySave, publish_run, take_over_publishing, with_repository
from hf_maskattn.training.run_card import write_card
from hf_maskattn.training.run_report import RunReport, read_metrics, score, write_report
from hf_maskattn.training.trainer import ReproducibleTrainer, not_written


@contextmanager
def telling_how_to_go_on(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Keep the log of a run that breaks, and say what is left of it.

    Args:
        trainer: The Trainer of the run.
        folder: Its output folder.

    Yields:
        Nothing.
    """
    try:
        yield
    except TrainingInterrupted:
        raise
    except Exception as error:
        if trainer.is_world_process_zero():
            with suppress(OSError):  # there may be no room for it
                _write_state(trainer, folder)
        last = find_last_complete_checkpoint(folder)
        error.add_note(
            "No checkpoint had been written: --resume begins anew."
            if last is None
            else f"Everything up to {last} is kept: go on with --resume."
        )
        raise


def write_results(assembly: Assembly, recipe: Recipe, folder: Path, metrics: dict[str, dict[str, float]]) -> None:
    """Write the log, the card, the scores and the model to the folder of a run, and mark the run as finished.

    Args:
        assembly: The Trainer and its data.
        recipe: The recipe.
        folder: The output folder.
        metrics: Values by metric name, by split.

    Raises:
        OSError: If something could not be written; the checkpoints are untouched.
    """
    trainer = assembly.trainer
    if trainer.is_world_process_zero():
        _write_state(trainer, folder)
        write_card(assembly, recipe, folder, metrics)
        best = trainer.state.best_model_checkpoint
        write_report(folder / METRICS_FILE, metrics, best_checkpoint=best and Path(best).name)
    try:
        trainer.save_model()
    except Exception as error:
        if is_write_error(error):
            raise not_written(folder, error) from error
        raise
    if trainer.is_world_process_zero():
        mark_finished(folder)


def _write_state(trainer: Trainer, folder: Path) -> None:
    write_atomically(folder / STATE_FILE, json.dumps(asdict(trainer.state), indent=2, sort_keys=True) + "\n")


logger = logging.getLogger(__name__)


class Start(Enum):
    """What to do with what lies in the output folder."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


FINISHED = Path()
"""Stands for the checkpoint of a run with nothing left to do."""


def check_folder(folder: Path, recipe: Recipe, start: Start) -> None:
    """Refuse an output folder that a run may not go to, before anything costly is done.

    Args:
        folder: The output folder.
        recipe: The recipe.
        start: What to do with what lies there.

    Raises:
        ValueError: If it holds anything and nothing was said, if it holds something but no run that could be resumed or
            replaced, or if a run is to be resumed with another model or data.
    """
    if start is Start.REFUSE:
        require_empty(folder)
        return
    require_run(folder)
    if start is Start.RESUME and (folder / RECIPE_FILE).is_file():
        for key, (old, new) in changed_keys(recipe, folder / RECIPE_FILE).items():
            if not key.startswith("training."):
                raise ValueError(
                    f"{folder} holds a run with {key}={old!r}, the recipe says {new!r}: resume with the recipe of the run "
                    f"({folder / RECIPE_FILE}), or replace the run with --overwrite."
                )


def starting_point(folder: Path, recipe: Recipe, start: Start) -> Path | None:
    """Find where a run begins.

    Args:
        folder: The output folder, checked.
        recipe: The recipe.
        start: What to do with what lies there.

    Returns:
        The checkpoint to go on from, None to begin at the beginning, `FINISHED` if there is nothing left to do.

    Raises:
        ValueError: If all that a run could go on from is a model alone, or the model of a finished run is damaged.
    """
    if start is not Start.RESUME:
        return None
    stored = folder / RECIPE_FILE
    changes = changed_keys(recipe, stored) if stored.is_file() else {}
    if is_finished(folder) and stored.is_file() and not changes:
        logger.info(f"The run in {folder} is finished, nothing is left to do.")
        return FINISHED
    for key, (old, new) in changes.items():
        logger.warning(f"{key} was {old!r} and is {new!r} from here on.")
    checkpoint = find_resume_checkpoint(folder)
    if checkpoint is None:
        logger.warning(f"There is no checkpoint in {folder} to go on from, training starts from the beginning.")
    else:
        logger.info(f"Going on from {checkpoint}.")
    return checkpoint


def begin(folder: Path, recipe: Recipe, start: Start) -> None:
    """Clear the folder of what the run replaces, and write down the recipe.

    This is done when everything is ready to train, so that a mistake in a recipe does not cost the run it would replace.
    """
    if start is Start.OVERWRITE:
        remove_run(folder)
    mark_unfinished(folder)
    save_recipe(recipe, folder / RECIPE_FILE)


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> RunReport:
    """Train the model of a recipe, score it, and write everything to its output folder.

    Args:
        recipe: The recipe.
        resume: Whether to continue the run in the folder from its last whole checkpoint.
        overwrite: Whether to replace the run in the folder.

    Returns:
        Where the model lies and how good it is.

    Raises:
        ValueError: If the folder is not empty and nothing was said, or holds something else than a run, another run is at
            work in it, or anything in the recipe does not fit; likewise TypeError, OSError, ImportError.
        TrainingInterrupted: If Ctrl-C came; the run can be resumed.
        NotPublished: If the run is finished, but could not be published as the recipe asks.
    """
    if resume and overwrite:
        raise ValueError("--resume continues the run in the folder, --overwrite replaces it: say one of them.")
    start = Start.RESUME if resume else Start.OVERWRITE if overwrite else Start.REFUSE
    args = training_arguments(recipe)
    check_model(recipe.model)
    check_launch(args)
    warn_of_busy_cores(args)
    target = take_over_publishing(args)
    folder = Path(args.output_dir)
    with lock_run_folder(folder) if args.process_index == 0 else nullcontext():
        return _train(recipe, args, folder, start, target)


def _train(recipe: Recipe, args: TrainingArguments, folder: Path, start: Start, target: HubTarget | None) -> RunReport:
    is_main = args.process_index == 0
    with args.main_process_first(local=False, desc="checking the output folder"):
        if is_main:
            check_folder(folder, recipe, start)
        checkpoint = starting_point(folder, recipe, start)
    if checkpoint is FINISHED:
        return RunReport(folder, read_metrics(folder / METRICS_FILE), is_main)
    if target is not None and is_main:
        target = with_repository(target)
    assembly = assemble(recipe, args, checkpoint)
    _require_a_batch(assembly.trainer)
    if is_main:
        begin(folder, recipe, start)
    with telling_how_to_go_on(assembly.trainer, folder):
        metrics = {"train": _run(assembly, checkpoint, target)}
        for split in ("validation", "test"):
            if split in assembly.data.splits:
                metrics[split] = score(assembly.trainer, split, assembly.data.splits[split], assembly.evaluation)
        write_results(assembly, recipe, folder, metrics)
    report = RunReport(folder, metrics, is_main)
    return report if target is None or not is_main else publish_run(report, target)


def _require_a_batch(trainer: ReproducibleTrainer) -> None:
    """Refuse a run of no steps; a stream has as many batches as are asked for."""
    args = trainer.args
    rows_of_step = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and not isinstance(trainer.train_dataset, RowStream):
        rows = len(trainer.train_dataset)
        if rows < rows_of_step:
            raise ValueError(
                f"training.dataloader_drop_last=True leaves nothing to train on: the train split has {rows} rows, a batch "
                f"has {rows_of_step} (training.per_device_train_batch_size={args.per_device_train_batch_size}, "
                f"{args.world_size} processes). Set a smaller batch, or training.dataloader_drop_last=false."
            )


def _run(assembly: Assembly, checkpoint: Path | None, target: HubTarget | None) -> dict[str, float]:
    trainer, stop = assembly.trainer, StopOnInterrupt()
    for callback in (stop, SaveAtEpochEnd(), KeepTrackOfBest()):
        trainer.add_callback(callback)
    if target is not None and target.at_every_save:
        trainer.add_callback(PublishEverySave(target))
    started = time.perf_counter()
    with stop.listening():
        try:
            values = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint)).metrics
        except TrainingInterrupted:
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            raise
    if stop.requested:
        # The last step was done when Ctrl-C came; what is left is to score and to write.
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
