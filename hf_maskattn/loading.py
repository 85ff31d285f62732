"""Loads configurations and models that may come from anywhere: nothing is executed, nothing built beyond the weights."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import _CACHED_NO_EXIST, snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import httpx
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME, cached_file

from hf_maskattn.auto import register


def find_file(name_or_folder: str | Path, file: str) -> str | None:
    """Find a file of a model.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.
        file: Name of the file.

    Returns:
        Where it is; None if there is none, or none in the cache and the Hub cannot be asked.

    Raises:
        OSError: If there is no such model, or the Hub breaks off in the middle.
    """
    try:
        return cached_file(name_or_folder, file, _raise_exceptions_for_missing_entries=False)
    except httpx.HTTPError as error:
        raise _broken_off(name_or_folder, file, error) from error


def has_file(name_or_folder: str | Path, file: str) -> bool:
    """Tell whether a model has a file.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.
        file: Name of the file.

    Returns:
        Whether it has.

    Raises:
        OSError: If there is no such model, or the Hub does not say.
    """
    try:
        return cached_file(name_or_folder, file) is not None
    except OSError as error:
        # An error with a cause comes from the way to the Hub, and not from a file that is not there.
        if error.__cause__ is None or try_to_load_from_cache(str(name_or_folder), file) is _CACHED_NO_EXIST:
            return False
        raise
    except httpx.HTTPError as error:
        raise _broken_off(name_or_folder, file, error) from error


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint with a model in the folder of a run that was stopped.

    Args:
        folder: The output folder of the run.

    Returns:
        The checkpoint of the largest step, None if there is none.
    """
    found = [path.parent for path in folder.glob(f"checkpoint-*/{CONFIG_NAME}")]
    steps = {path: path.name.removeprefix("checkpoint-") for path in found}
    return max((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]), default=None)


def use_checkpoint(checkpoint: Path) -> str:
    """Say what to do with the checkpoint of a run that was stopped, where a model is asked for."""
    return (
        f"its run was stopped. Give its newest checkpoint instead, {checkpoint}, or finish the run with hf-maskattn train "
        "RECIPE --resume"
    )


def _broken_off(name_or_folder: str | Path, file: str, error: Exception) -> OSError:
    return OSError(f"the Hub broke off when {file} of {name_or_folder} was asked for: {error}")


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


_OURS = "hf_maskattn."

_FEW_LAYERS = 1000
"""So many are described in no time. Layers may share their weights, so that no number is too large in itself."""

_FEW_LABELS = 100_000
"""So many names are made up in no time."""


def load_config(name_or_folder: str | Path, *, trust_remote_code: bool = False, **changes: Any) -> PreTrainedConfig:
    """Load the configuration of a model.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.
        trust_remote_code: Whether to run code that lies beside the weights.
        **changes: Fields to change.

    Returns:
        The configuration, with attention computed by "eager" where there is a choice, as some audits need.

    Raises:
        FileNotFoundError: If there is no such folder or name, or the Hub cannot be reached.
        ValueError: If it is no model that transformers knows, or its configuration is broken.
    """
    register()
    try:
        path = cached_file(name_or_folder, CONFIG_NAME)
    except Exception as error:  # a connection that is cut ends in errors of httpx, which are no OSError
        raise FileNotFoundError(
            f"the model {str(name_or_folder)!r} is neither a folder here nor could it be loaded from the Hub: {error}"
        ) from error
    if path is None:
        checkpoint = newest_checkpoint(Path(name_or_folder))
        way_out = "give a folder that save_pretrained wrote a model to" if checkpoint is None else use_checkpoint(checkpoint)
        raise FileNotFoundError(f"{name_or_folder} has no {CONFIG_NAME}: {way_out}.")
    try:
        raw = json.loads(Path(path).read_bytes())
        if not isinstance(raw, dict):
            raise ValueError("there are no fields in it")
        _check_number_of_labels(raw, name_or_folder)
        config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=trust_remote_code, **changes)
        config._attn_implementation = "eager"  # or it may name code on the Hub, which would be run
        if type(config).__module__.startswith(_OURS):
            _check_names(config)
        return config
    except Exception as error:
        raise ValueError(f"the {CONFIG_NAME} of {name_or_folder} cannot be used: {in_one_line(error)}.") from error


def load_whole_model(
    auto_class: Any,
    name_or_folder: str | Path,
    config: PreTrainedConfig,
    *,
    trust_remote_code: bool = False,
    new_head: bool = False,
    **settings: Any,
) -> PreTrainedModel:
    """Load a model whose weights are all there.

    Args:
        auto_class: What loads it: an Auto class, or a class of models.
        name_or_folder: Folder of the model, or its name on the Hub.
        config: Its configuration, from `load_config`.
        trust_remote_code: Whether to run code that lies beside the weights.
        new_head: Whether a head is made anew where the weights have another one or none.
        **settings: Further settings of `from_pretrained`.

    Returns:
        The model.

    Raises:
        OSError: If the weights cannot be fetched from the Hub.
        ValueError: If the weights are no safetensors, are damaged, or are not those of the configuration.
    """
    shapes = weight_shapes(name_or_folder)
    _check_number_of_layers(config, shapes, name_or_folder)
    model_class = getattr(auto_class, "_model_mapping", {}).get(type(config), auto_class)
    if getattr(model_class, "__module__", "").startswith(_OURS) and not new_head:
        check_fit(describe(model_class, config, shapes, name_or_folder), shapes, name_or_folder)
    try:
        return auto_class.from_pretrained(
            name_or_folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=new_head,
            **settings,
        )
    except Exception as error:
        raise ValueError(f"the model {name_or_folder} cannot be loaded: {in_one_line(error)}.") from error


def describe(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, shapes: Shapes, name_or_folder: str | Path
) -> PreTrainedModel:
    """Build a model that has shapes and takes no memory.

    Args:
        model_class: A class of this package.
        config: Its configuration.
        shapes: What the weights hold that it is to have.
        name_or_folder: Where they come from, for the error.

    Returns:
        The model, on the device "meta".

    Raises:
        ValueError: If there cannot be such a model, or it has more layers than the weights could be of.
    """
    _check_number_of_layers(config, shapes, name_or_folder)
    try:
        with torch.device("meta"):
            return model_class(config)
    except Exception as error:
        raise ValueError(
            f"the {CONFIG_NAME} of {name_or_folder} describes no model that can be built ({in_one_line(error)}); its weights "
            f"are {in_short(shapes)}."
        ) from error


def check_fit(model: PreTrainedModel, shapes: Shapes, name_or_folder: str | Path) -> None:
    """Refuse weights that are not all those of a model.

    Args:
        model: The model, from `describe`; a bare model may have the weights of one with a head.
        shapes: What the weights hold.
        name_or_folder: Where they come from, for the error.

    Raises:
        ValueError: If one is missing, or has another shape.
    """
    expected, held = _expected(model), _by_own_name(model, shapes)
    for name, shape in expected.items():
        if held.get(name) != shape:
            found = f"is {list(held[name])}" if name in held else "is missing"
            raise ValueError(
                f"the weights of {name_or_folder} do not fit its {CONFIG_NAME}: {name} {found}, {list(shape)} is asked for. In "
                f"all, {in_short(expected)} are asked for, the weights are {in_short(shapes)}."
            )


def other_shapes(model: PreTrainedModel, other: PreTrainedModel) -> list[str]:
    """List the weights that only one of two models, from `describe`, has, or that have different shapes in them."""
    ours, theirs = _expected(model), _expected(other)
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def _check_number_of_labels(raw: dict[str, Any], name_or_folder: str | Path) -> None:
    """Refuse to make up names for more labels than any of the weights could tell apart."""
    number = raw.get("num_labels")
    if isinstance(number, int) and number > _FEW_LABELS:
        shapes = weight_shapes(name_or_folder)
        if number > widest(shapes):
            raise ValueError(f"it asks for num_labels={number}, its weights are {in_short(shapes)}")


def _check_names(config: PreTrainedConfig) -> None:
    """Check the fields that this package reads beside those of its own configurations."""
    classes, labels = config.architectures, config.id2label
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ValueError(f"architectures={classes!r} is no list of names")
    if sorted(labels) != list(range(len(labels))):
        raise ValueError(f"the {len(labels)} labels of id2label are not numbered from 0 to {len(labels) - 1}")


def _check_number_of_layers(config: PreTrainedConfig, shapes: Shapes, name_or_folder: str | Path) -> None:
    for name in ("num_hidden_layers", "decoder_layers"):
        layers = getattr(config, name, None)
        if isinstance(layers, int) and layers > max(len(shapes), _FEW_LAYERS):
            raise ValueError(
                f"the {CONFIG_NAME} of {name_or_folder} asks for {name}={layers}, its weights are {in_short(shapes)}."
            )


def _expected(model: PreTrainedModel) -> Shapes:
    tied = model.all_tied_weights_keys
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}


def _by_own_name(model: PreTrainedModel, shapes: Shapes) -> Shapes:
    """Name the tensors of a file as a model does, which may be the bare one of a model with a head."""
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name in _expected(model)):
        return shapes
    return {name.removeprefix(prefix): shape for name, shape in shapes.items()}


def download_revision(name_or_folder: str | Path, revision: str | None) -> str | Path:
    """Download a revision of a model on the Hub, so that everything else reads it from a folder.

    Args:
        name_or_folder: Name of the model on the Hub; a folder if there is no revision.
        revision: Branch, tag or commit. `None` changes nothing.

    Returns:
        The folder of the download, or `name_or_folder`.

    Raises:
        ValueError: If a revision of a folder is asked for.
        FileNotFoundError: If there is no such model or revision, or the Hub cannot be reached.
    """
    if revision is None:
        return name_or_folder
    if Path(name_or_folder).exists():
        raise ValueError(f"revision must not be given for a folder, got {revision!r} for {name_or_folder}. Remove it.")
    try:
        return snapshot_download(
            str(name_or_folder), revision=revision, ignore_patterns=["*.bin", "*.pt", "*.pkl", "checkpoint-*"]
        )
    except Exception as error:
        raise FileNotFoundError(
            f"revision {revision!r} of {name_or_folder} could not be loaded from the Hub: {in_one_line(error)}."
        ) from error


def find_recipe(name_or_folder: str | Path) -> Path:
    """Find the recipe that a model was trained with.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If the model has none.
    """
    path = find_file(name_or_folder, "recipe.yaml")
    if path is None:
        raise FileNotFoundError(f"{name_or_folder} has no recipe.yaml. Give a recipe after the model.")
    return Path(path)
