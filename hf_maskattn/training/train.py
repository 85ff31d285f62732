"""Trains a recipe: from an empty folder to a model with its tokenizer, scores, recipe and card."""

import time
from contextlib import nullcontext
from pathlib import Path

from transformers import TrainingArguments

from hf_maskattn.checkpoints.best_checkpoint import KeepTrackOfBest
from hf_maskattn.checkpoints.checkpoints import last_whole_checkpoint
from hf_maskattn.checkpoints.epoch_end import SaveAtEpochEnd
from hf_maskattn.checkpoints.folder_lock import held_alone
from hf_maskattn.checkpoints.interruption import StopOnInterrupt, TrainingInterrupted
from hf_maskattn.checkpoints.output_folder import METRICS_FILE
from hf_maskattn.data.row_stream import RowStream
from hf_maskattn.processes.launch import check_launch, warn_of_busy_cores
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training.assembly import Assembly, assemble
from hf_maskattn.training.model_building import check_model
from hf_maskattn.training.publishing import HubTarget, PublishEverySave, publish_run, take_over_publishing, with_repository
from hf_maskattn.training.reproducible_trainer import ReproducibleTrainer
from hf_maskattn.training.run_end import telling_how_to_go_on, write_results
from hf_maskattn.training.run_report import RunReport, read_metrics, score
from hf_maskattn.training.run_start import FINISHED, Start, begin, check_folder, starting_point


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
    with held_alone(folder) if args.process_index == 0 else nullcontext():
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
        last = last_whole_checkpoint(Path(trainer.args.output_dir))
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
