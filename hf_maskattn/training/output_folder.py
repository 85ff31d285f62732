"""The folder of a run: which files are ours, when it may be written to, when the run in it is finished."""

import re
import shutil
from pathlib import Path

import hf_maskattn.model
from hf_maskattn.training.checkpoints import is_whole_weights_file

METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.yaml"
CARD_FILE = "README.md"
PICTURE_FILE = "attention.png"
STATE_FILE = "trainer_state.json"

_WRITTEN_BY_A_RUN = {
    METRICS_FILE,
    RECIPE_FILE,
    CARD_FILE,
    PICTURE_FILE,
    STATE_FILE,
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "training_args.bin",
}
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds anything.

    Raises:
        ValueError: If it does, or is a file.
    """
    if folder.is_file():
        raise ValueError(f"training.output_dir={str(folder)!r} is a file, give the name of a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"training.output_dir={str(folder)!r} is not empty: continue the run in it with --resume, replace it with "
            "--overwrite, or name another folder with training.output_dir=FOLDER."
        )


def remove_run(folder: Path) -> None:
    """Remove what a run writes (checkpoints, model, tokenizer, reports, model code) and nothing else."""
    code = {path.name for path in Path(hf_maskattn.model.__file__).parent.glob("*.py")}
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and _CHECKPOINT.fullmatch(path.name):
            shutil.rmtree(path)
        elif path.is_file() and path.name in _WRITTEN_BY_A_RUN | code:
            path.unlink()


def is_finished(folder: Path) -> bool:
    """Tell whether a run in a folder came to its end: the metrics and the whole model are there."""
    return (folder / METRICS_FILE).is_file() and is_whole_weights_file(folder / "model.safetensors")
