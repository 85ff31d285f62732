"""How a run ends: with everything it found out, or with what is left of it and how to go on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from transformers import Trainer

from hf_maskattn.checkpoints.checkpoint_writing import not_written
from hf_maskattn.checkpoints.checkpoints import last_sealed_checkpoint
from hf_maskattn.checkpoints.interruption import TrainingInterrupted
from hf_maskattn.checkpoints.output_folder import METRICS_FILE, STATE_FILE, finish
from hf_maskattn.checkpoints.whole_files import is_write_failure, write_whole
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.training.assembly import Assembly
from hf_maskattn.training.run_card import write_card
from hf_maskattn.training.run_report import write_report


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
        last = last_sealed_checkpoint(folder)
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
        if is_write_failure(error):
            raise not_written(folder, error) from error
        raise
    if trainer.is_world_process_zero():
        finish(folder)


def _write_state(trainer: Trainer, folder: Path) -> None:
    write_whole(folder / STATE_FILE, json.dumps(asdict(trainer.state), indent=2, sort_keys=True) + "\n")
