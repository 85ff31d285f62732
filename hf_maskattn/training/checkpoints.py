"""Finds the checkpoint from which a run can go on, passing over those that were cut off while being written."""

import json
import logging
import re
import zipfile
from pathlib import Path

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint of a run that has everything; warns of each newer one that has not.

    Args:
        folder: Output folder of the run.

    Returns:
        The checkpoint, None if there is none.
    """
    matches = [(_NAME.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else [])]
    newest_first = sorted(((int(match[1]), path) for match, path in matches if match and path.is_dir()), reverse=True)
    passed_over: list[str] = []
    for _, path in newest_first:
        missing = what_is_missing(path)
        if missing is None:
            for text in passed_over:
                logger.warning(f"{text}; going on from {path}.")
            return path
        passed_over.append(f"{path} is incomplete ({missing})")
    for text in passed_over:
        logger.warning(f"{text}; there is no whole checkpoint to go on from.")
    return None


def what_is_missing(checkpoint: Path) -> str | None:
    """Tell what a checkpoint lacks to go on from it.

    Args:
        checkpoint: Folder of the checkpoint.

    Returns:
        Name of the first file that is missing or cut off, None if it is whole.
    """
    weights = sorted(checkpoint.glob("model*.safetensors"))
    if not weights:
        return "model.safetensors"
    for path in weights:
        if not is_whole_weights_file(path):
            return path.name
    for name in ("optimizer.pt", "scheduler.pt"):
        if not zipfile.is_zipfile(checkpoint / name):
            return name
    random_states = sorted(checkpoint.glob("rng_state*.pth"))
    if not random_states:
        return "rng_state.pth"
    for path in random_states:
        if not zipfile.is_zipfile(path):
            return path.name
    return None if _is_json(checkpoint / "trainer_state.json") else "trainer_state.json"


def is_whole_weights_file(path: Path) -> bool:
    """Tell whether a safetensors file has the header and the length that its header says."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        header_length = int.from_bytes(file.read(8), "little")
        if header_length > path.stat().st_size:
            return False
        try:
            header = json.loads(file.read(header_length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return path.stat().st_size == 8 + header_length + max(ends, default=0)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True
