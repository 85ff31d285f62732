"""Trains a recipe: from an empty folder to a model with its tokenizer, scores, recipe and card."""

import time
from pathlib import Path

from hf_maskattn.data.loading import BUILT_IN
from hf_maskattn.export.model_card import TrainingData, build_model_card
from hf_maskattn.training.assembly import Assembly, assemble
from hf_maskattn.training.best_checkpoint import KeepTrackOfBest
from hf_maskattn.training.checkpoints import last_whole_checkpoint
from hf_maskattn.training.interruption import StopOnInterrupt, TrainingInterrupted
from hf_maskattn.training.launch import check_launch
from hf_maskattn.training.output_folder import CARD_FILE, METRICS_FILE
from hf_maskattn.training.recipe import Recipe
from hf_maskattn.training.run_report import RunReport, read_metrics, score, write_report
from hf_maskattn.training.run_start import FINISHED, Start, begin, check_folder, starting_point
from hf_maskattn.training.training_defaults import training_arguments


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> RunReport:
    """Train the model of a recipe, score it, and write everything to its output folder.

    Args:
        recipe: The recipe.
        resume: Whether to continue the run in the folder from its last whole checkpoint.
        overwrite: Whether to replace the run in the folder.

    Returns:
        Where the model lies and how good it is.

    Raises:
        ValueError: If the folder is not empty and nothing was said, or if anything in the recipe does not fit; likewise
            TypeError, OSError, ImportError.
        TrainingInterrupted: If Ctrl-C came; the run can be resumed.
    """
    if resume and overwrite:
        raise ValueError("--resume continues the run in the folder, --overwrite replaces it: say one of them.")
    start = Start.RESUME if resume else Start.OVERWRITE if overwrite else Start.REFUSE
    args = training_arguments(recipe)
    check_launch(args)
    folder = Path(args.output_dir)
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
    metrics = {"train": _run(assembly, checkpoint)}
    for split in ("validation", "test"):
        if split in assembly.data.splits:
            metrics[split] = score(assembly.trainer, split, assembly.data.splits[split], assembly.evaluation)
    _write_results(assembly, recipe, folder, metrics)
    return RunReport(folder, metrics, is_main)


def _run(assembly: Assembly, checkpoint: Path | None) -> dict[str, float]:
    trainer, stop = assembly.trainer, StopOnInterrupt()
    trainer.add_callback(stop)
    trainer.add_callback(KeepTrackOfBest())
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
    trainer.save_state()
    if trainer.is_world_process_zero():
        card = build_model_card(
            name=folder.resolve().name,
            model=trainer.model,
            task=recipe.model.task,
            data=_training_data(assembly, recipe),
            metrics={split: values for split, values in metrics.items() if split != "train"},
            metric_names=assembly.evaluation.metric_names,
            base_model=recipe.model.pretrained,
        )
        card.save(folder / CARD_FILE)
        best = trainer.state.best_model_checkpoint
        write_report(folder / METRICS_FILE, metrics, best_checkpoint=best and Path(best).name)
    # Last, because a run is finished when the metrics and the model are there; and it pushes, if that is asked for.
    trainer.save_model()


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
