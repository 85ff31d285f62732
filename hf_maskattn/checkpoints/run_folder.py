"""The folder of a run: its lock, the files that a run writes, and whether the run is finished."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

import hf_maskattn.model
from hf_maskattn.checkpoints.checkpoints import (
    MANIFEST_FILE,
    find_damage,
    is_complete,
    list_checkpoints,
    partial_path,
    remove_checkpoint,
    remove_manifest,
    summarize_error,
    write_manifest,
)

LOCK_FILE = "_run.lock"
"""Trainer does not push files whose names begin with an underscore."""

METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.yaml"
CARD_FILE = "README.md"
PICTURE_FILE = "attention.png"
STATE_FILE = "trainer_state.json"
SEEDS_FILE = "seeds.json"
REPORT_FILE = "report.json"
CONFUSION_FILE = "confusion_matrix.csv"
CONFUSION_PICTURE = "confusion_matrix.png"
ERRORS_FILE = "errors.jsonl"
"""Not published: it has texts of the data."""

_RUN_FILES = {
    METRICS_FILE,
    CARD_FILE,
    PICTURE_FILE,
    STATE_FILE,
    REPORT_FILE,
    CONFUSION_FILE,
    CONFUSION_PICTURE,
    ERRORS_FILE,
    MANIFEST_FILE,
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "training_args.bin",
}
_OLD_CODE_MODULES = (
    *("attentive_gradient", "attentive_step", "cells", "checkpoint_code", "chunked_attention", "code_version"),
    *("configuration_checks", "decoding_state", "deep_output", "eager_attention", "gate_steps", "generation_limits"),
    *("gradient_path", "gru_gradient", "initialization", "layout", "precision", "ragged_attention", "real_tokens"),
    *("recurrence_operator", "segments", "softmax", "source_processors", "stateful_generation", "tanh", "tensor_checks"),
)
"""Modules of the model code of earlier versions, which run folders of that time still hold."""
_TENSORBOARD_LOGS = "runs/*_??-??-??_*/events.out.tfevents.*"
"""Where Trainer writes them: `runs/Jan31_23-59-59_HOST/`. A folder `runs` may exist for other reasons."""


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Lock a folder until the block or the process ends.

    It is created if missing, and removed again if it was created and nothing was written to it.

    Raises:
        ValueError: If another process has locked it, or it is a file.
        OSError: If it cannot be created or written to.
    """
    is_new = not folder.exists()
    if folder.is_file():
        raise ValueError(f"training.output_dir must be a folder, got the file {str(folder)!r}.")
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"Another run is using {folder}. Wait until it ends, stop it, or choose another folder with "
            "training.output_dir=FOLDER."
        ) from error
    except OSError as error:
        raise OSError(
            f"training.output_dir must be a folder that can be written to, got {str(folder)!r} ({summarize_error(error)}). "
            "Choose another one with training.output_dir=FOLDER."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            # Removed while it is locked: a process that opened the file before notices, and creates a new one.
            (folder / LOCK_FILE).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def require_empty(folder: Path) -> None:
    """Reject a folder that holds anything but the lock of this run.

    Raises:
        ValueError: If it does.
    """
    if folder.is_dir() and any(path.name != LOCK_FILE for path in folder.iterdir()):
        raise ValueError(
            f"training.output_dir must be an empty folder, got {str(folder)!r}. Continue the run in it with --resume, replace "
            "it with --overwrite, or choose another folder with training.output_dir=FOLDER."
        )


def require_run(folder: Path) -> None:
    """Reject a folder that is not empty and in which no run has started: its files may only look like those of a run.

    Raises:
        ValueError: If it is such a folder.
    """
    if (folder / RECIPE_FILE).is_file() or list_checkpoints(folder):
        return
    before_recipe = {LOCK_FILE, partial_path(folder / RECIPE_FILE).name}
    if folder.is_dir() and any(path.name not in before_recipe for path in folder.iterdir()):
        raise ValueError(
            f"training.output_dir must be the folder of a run or empty, got {str(folder)!r}, which has no {RECIPE_FILE} and no "
            "checkpoint. There is nothing to resume or overwrite. Choose another folder with training.output_dir=FOLDER."
        )


def remove_run(folder: Path) -> None:
    """Remove what a run writes, and nothing else: checkpoints, model, tokenizer, reports, logs and model code.

    The recipe is removed last, because a run is resumed only with its recipe.
    """
    mark_unfinished(folder)
    for path in list_checkpoints(folder):
        remove_checkpoint(path)
    for path in list(folder.glob(_TENSORBOARD_LOGS)):
        path.unlink()
        for parent in (path.parent, path.parent.parent):
            if not any(parent.iterdir()):
                parent.rmdir()
    code = {path.name for path in Path(hf_maskattn.model.__file__).parent.glob("*.py")}
    code |= {f"{name}.py" for name in _OLD_CODE_MODULES}
    for name in [*sorted(_RUN_FILES | code), RECIPE_FILE]:
        for path in (folder / name, partial_path(folder / name)):
            if path.is_file():
                path.unlink()


def mark_unfinished(folder: Path) -> None:
    """Mark a run as unfinished, before anything in its folder changes."""
    remove_manifest(folder)
    (folder / METRICS_FILE).unlink(missing_ok=True)


def mark_finished(folder: Path) -> None:
    """Mark a run as finished, after everything was written.

    Raises:
        OSError: If the manifest cannot be written.
    """
    write_manifest(folder, _list_weights(folder), resumable=False)


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder is finished, and has its metrics and weights.

    Raises:
        ValueError: If the weights are not those that the run wrote.
    """
    if not ((folder / METRICS_FILE).is_file() and is_complete(folder) and any(_list_weights(folder))):
        return False
    damage = find_damage(folder)
    if damage is not None:
        raise ValueError(
            f"The run in {folder} is finished, but {damage}. To write the model again from the last checkpoint, remove "
            f"{folder / METRICS_FILE} and use --resume."
        )
    return True


def _list_weights(folder: Path) -> Iterable[Path]:
    return folder.glob("model*.safetensors")
