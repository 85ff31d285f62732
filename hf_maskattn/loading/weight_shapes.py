"""What the weights of a model say about themselves, read before anything is made of them; safetensors only."""

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME

from hf_maskattn.loading.model_files import find_file, has_file

Shapes = dict[str, tuple[int, ...]]
"""Shape of each tensor, by name."""


def weight_shapes(name_or_folder: str | Path) -> Shapes:
    """Read the shapes of the weights of a model.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.

    Returns:
        Shape of each tensor, by name.

    Raises:
        OSError: If the Hub does not say whether it has them.
        ValueError: If the weights are missing, are no safetensors, or are cut off.
    """
    path = find_file(name_or_folder, SAFE_WEIGHTS_NAME)
    if path is not None:
        return _shapes_in(path)
    index = find_file(name_or_folder, SAFE_WEIGHTS_INDEX_NAME)
    if index is None:
        has_file(name_or_folder, SAFE_WEIGHTS_NAME)  # raises where it is the Hub that is missing
        pickled = f" {WEIGHTS_NAME} is not read: it may run any code." if find_file(name_or_folder, WEIGHTS_NAME) else ""
        raise ValueError(
            f"{name_or_folder} has no {SAFE_WEIGHTS_NAME}.{pickled} Have whoever made the model save it with save_pretrained."
        )
    try:
        names = sorted(set(json.loads(Path(index).read_bytes())["weight_map"].values()))
        paths = [find_file(name_or_folder, name) for name in names]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is no index of weights: {in_one_line(error)}.") from error
    shapes: Shapes = {}
    for name, path in zip(names, paths, strict=True):
        if path is None:
            raise ValueError(f"{name_or_folder} has no {name}, which its {SAFE_WEIGHTS_INDEX_NAME} names.")
        shapes |= _shapes_in(path)
    return shapes


def in_short(shapes: Shapes) -> str:
    """Say how much there is."""
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return f"{numbers:,} parameters in {len(shapes)} tensors, none wider than {widest(shapes):,}"


def widest(shapes: Shapes) -> int:
    """Find the largest size of any tensor in any direction."""
    return max((size for shape in shapes.values() for size in shape), default=0)


def in_one_line(error: BaseException) -> str:
    """Say in one line what an error says in several."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"


def _shapes_in(path: str) -> Shapes:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no whole safetensors file: {in_one_line(error)}.") from error
