"""Trains a recipe: from an empty folder to a model with its tokenizer, scores, recipe and card."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

from transformers import Trainer, TrainingArguments

from hf_maskattn.data.loading import BUILT_IN
from hf_maskattn.export.model_card import TrainingData, build_model_card
from hf_maskattn.training.assembly import Assembly, assemble
from hf_maskattn.training.best_checkpoint import KeepTrackOfBest
from hf_maskattn.training.checkpoint_writing import not_written
from hf_maskattn.training.checkpoints import last_sealed_checkpoint, last_whole_checkpoint
from hf_maskattn.training.epoch_end import SaveAtEpochEnd
from hf_maskattn.training.folder_lock import held_alone
from hf_maskattn.training.interruption import StopOnInterrupt, TrainingInterrupted
from hf_maskattn.training.output_folder import CARD_FILE, METRICS_FILE, STATE_FILE, finish
from hf_maskattn.training.recipe import Recipe
from hf_maskattn.training.run_report import RunReport, read_metrics, score, write_report
from hf_maskattn.training.run_start import FINISHED, Start, begin, check_folder, starting_point
from hf_maskattn.training.training_defaults import training_arguments
from hf_maskattn.training.whole_files import is_write_failure, write_whole


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> RunReport:
    """Train the model of a recipe, score it, and write everything to its output folder.

    Args:
        recipe: The recipe.
        resume: Whether to continue the run in the folder from its last whole checkpoint.
        overwrite: Whether to replace the run in the folder.

    Returns:
        Where the model lies and how good it is.

    Raises:
        ValueError: If the folder is not empty and nothing was said, another run is at work in it, or anything in the recipe
            does not fit; likewise TypeError, OSError, ImportError.
        TrainingInterrupted: If Ctrl-C came; the run can be resumed.
    """
    if resume and overwrite:
        raise ValueError("--resume continues the run in the folder, --overwrite replaces it: say one of them.")
    start = Start.RESUME if resume else Start.OVERWRITE if overwrite else Start.REFUSE
    args = training_arguments(recipe)
    folder = Path(args.output_dir)
    with held_alone(folder) if args.process_index == 0 else nullcontext():
        return _train(recipe, args, folder, start)


def _train(recipe: Recipe, args: TrainingArguments, folder: Path, start: Start) -> RunReport:
    is_main = args.process_index == 0
    with args.main_process_first(local=False, desc="checking the output folder"):
        if is_main:
            check_folder(folder, recipe, start)
        checkpoint = starting_point(folder, recipe, start)
    if checkpoint is FINISHED:
        return RunReport(folder, read_metrics(folder / METRICS_FILE), is_main)
    assembly = assemble(recipe, args)
    if is_main:
        begin(folder, recipe, start)
    with _telling_how_to_go_on(assembly.trainer, folder):
        metrics = {"train": _run(assembly, checkpoint)}
        for split in ("validation", "test"):
            if split in assembly.data.splits:
                metrics[split] = score(assembly.trainer, split, assembly.data.splits[split], assembly.evaluation)
        _write_results(assembly, recipe, folder, metrics)
    return RunReport(folder, metrics, is_main)


@contextmanager
def _telling_how_to_go_on(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Keep the log of a run that breaks, and say what is left of it."""
    try:
        yield
    except TrainingInterrupted:
        raise
    except Exception as error:
        if trainer.is_world_process_zero():
            with suppress(OSError):  # there may be no room for it
                _write_state(trainer, folder)
        last = last_sealed_checkpoint(folder)
        error.add_note(
            "No checkpoint had been written: --resume begins anew."
            if last is None
            else f"Everything up to {last} is kept: go on with --resume."
        )
        raise


def _run(assembly: Assembly, checkpoint: Path | None) -> dict[str, float]:
    trainer, stop = assembly.trainer, StopOnInterrupt()
    for callback in (stop, SaveAtEpochEnd(), KeepTrackOfBest()):
        trainer.add_callback(callback)
    started = time.perf_counter()
    with stop.listening():
        try:
            values = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint)).metrics
        except TrainingInterrupted:
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            raise
    if stop.requested:
        # The last step was done when Ctrl-C came; what is left is to score and to write.
        last = last_whole_checkpoint(Path(trainer.args.output_dir))
        if last is not None:
            raise TrainingInterrupted(last)
    metrics = {"steps": float(trainer.state.global_step), "epochs": float(trainer.state.epoch or 0)}
    first_step = int(checkpoint.name.rpartition("-")[2]) if checkpoint is not None else 0
    if trainer.state.global_step > first_step:
        metrics["loss"] = values["train_loss"]
        metrics["runtime"] = time.perf_counter() - started
        metrics["samples_per_second"] = values["train_samples_per_second"]
    return metrics


def _write_results(assembly: Assembly, recipe: Recipe, folder: Path, metrics: dict[str, dict[str, float]]) -> None:
    trainer = assembly.trainer
    if trainer.is_world_process_zero():
        _write_state(trainer, folder)
        card = build_model_card(
            name=folder.resolve().name,
            model=trainer.model,
            task=recipe.model.task,
            data=_training_data(assembly, recipe),
            metrics={split: values for split, values in metrics.items() if split != "train"},
            metric_names=assembly.evaluation.metric_names,
            base_model=recipe.model.pretrained,
        )
        write_whole(folder / CARD_FILE, str(card))
        best = trainer.state.best_model_checkpoint
        write_report(folder / METRICS_FILE, metrics, best_checkpoint=best and Path(best).name)
    try:
        trainer.save_model()  # and pushes, if that is asked for
    except Exception as error:
        if is_write_failure(error):
            raise not_written(folder, error) from error
        raise
    if trainer.is_world_process_zero():
        finish(folder)


def _write_state(trainer: Trainer, folder: Path) -> None:
    write_whole(folder / STATE_FILE, json.dumps(asdict(trainer.state), indent=2, sort_keys=True) + "\n")


def _training_data(assembly: Assembly, recipe: Recipe) -> TrainingData:
    data, about = recipe.data, assembly.data.about
    built_in = data.source in BUILT_IN
    return TrainingData(
        name=data.source or Path(str(data.train_file)).name,
        hub_id=None if built_in else data.source,
        description=about.description,
        license=about.license,
        homepage=about.homepage,
        rows={name: split.num_rows for name, split in assembly.data.splits.items()},
    )
