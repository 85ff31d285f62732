"""The folder of a run: which files are ours, when it may be written to, when the run in it is finished."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

import hf_maskattn.model
from hf_maskattn.checkpoints.checkpoints import (
    MANIFEST_FILE,
    checkpoints_in,
    find_damage,
    is_sealed,
    reason,
    remove_checkpoint,
    scratch_of,
    seal,
    unseal,
)

LOCK_FILE = "_run.lock"
"""Trainer leaves files with an underscore out of what it pushes to the Hub."""


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends, or the process does, however that happens.

    Args:
        folder: The folder, made if there is none; one that was made is gone again if nothing was written to it.

    Yields:
        Nothing.

    Raises:
        ValueError: If another process holds it, or it is a file.
        OSError: If it cannot be made or written to; names the way out.
    """
    is_new = not folder.exists()
    if folder.is_file():
        raise ValueError(f"training.output_dir={str(folder)!r} is a file, give the name of a folder.")
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"another run is at work in {folder}: wait until it has ended or stop it, or name another folder with "
            "training.output_dir=FOLDER."
        ) from error
    except OSError as error:
        raise OSError(
            f"training.output_dir must be a folder that can be written to, got {str(folder)!r} ({reason(error)}). Name another "
            "one with training.output_dir=FOLDER."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            # While it is held: whoever opened the file before finds that it is gone, and takes a new one.
            (folder / LOCK_FILE).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.yaml"
CARD_FILE = "README.md"
PICTURE_FILE = "attention.png"
STATE_FILE = "trainer_state.json"

_WRITTEN_BY_A_RUN = {
    METRICS_FILE,
    CARD_FILE,
    PICTURE_FILE,
    STATE_FILE,
    MANIFEST_FILE,
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "training_args.bin",
}
_TENSORBOARD_LOGS = "runs/*_??-??-??_*/events.out.tfevents.*"
"""Where Trainer puts them: `runs/Jan31_23-59-59_HOST/`. A folder `runs` may be there for other reasons."""


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds anything but the lock of this run.

    Raises:
        ValueError: If it does.
    """
    if folder.is_dir() and any(path.name != LOCK_FILE for path in folder.iterdir()):
        raise ValueError(
            f"training.output_dir={str(folder)!r} is not empty: continue the run in it with --resume, replace it with "
            "--overwrite, or name another folder with training.output_dir=FOLDER."
        )


def require_run(folder: Path) -> None:
    """Refuse a folder with anything in it in which no run ever began: what lies there may have the names of our files.

    Raises:
        ValueError: If it is such a folder.
    """
    if (folder / RECIPE_FILE).is_file() or checkpoints_in(folder):
        return
    before_the_recipe = {LOCK_FILE, scratch_of(folder / RECIPE_FILE).name}
    if folder.is_dir() and any(path.name not in before_the_recipe for path in folder.iterdir()):
        raise ValueError(
            f"training.output_dir={str(folder)!r} is not empty, and no run began in it (it has no {RECIPE_FILE} and no "
            "checkpoint), so that there is nothing to resume or to overwrite: name another folder with "
            "training.output_dir=FOLDER."
        )


def remove_run(folder: Path) -> None:
    """Remove what a run writes (checkpoints, model, tokenizer, reports, logs, model code) and nothing else.

    The recipe goes last: as long as there is anything to go on from, it tells of which run.
    """
    reopen(folder)
    for path in checkpoints_in(folder):
        remove_checkpoint(path)
    for path in list(folder.glob(_TENSORBOARD_LOGS)):
        path.unlink()
        for parent in (path.parent, path.parent.parent):
            if not any(parent.iterdir()):
                parent.rmdir()
    code = {path.name for path in Path(hf_maskattn.model.__file__).parent.glob("*.py")}
    for name in [*sorted(_WRITTEN_BY_A_RUN | code), RECIPE_FILE]:
        for path in (folder / name, scratch_of(folder / name)):
            if path.is_file():
                path.unlink()


def reopen(folder: Path) -> None:
    """Mark a run as not finished, before anything in its folder changes."""
    unseal(folder)
    (folder / METRICS_FILE).unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """Mark a run as finished, now that everything is written.

    Raises:
        OSError: If the mark cannot be written.
    """
    seal(folder, _weights(folder), resumable=False)


def is_finished(folder: Path) -> bool:
    """Tell whether a run in a folder came to its end, and its metrics and weights are there.

    Raises:
        ValueError: If the weights are not those that the run wrote.
    """
    if not ((folder / METRICS_FILE).is_file() and is_sealed(folder) and any(_weights(folder))):
        return False
    damage = find_damage(folder)
    if damage is not None:
        raise ValueError(
            f"the run in {folder} is finished, but {damage}: if that was not you, remove {folder / METRICS_FILE}, and --resume "
            "writes the model again from the last checkpoint."
        )
    return True


def _weights(folder: Path) -> Iterable[Path]:
    return folder.glob("model*.safetensors")
