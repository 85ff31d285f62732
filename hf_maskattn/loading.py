"""Loading of configurations and models from untrusted sources: no code is run, and nothing larger than the weights is built."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import _CACHED_NO_EXIST, snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import httpx
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME, cached_file

from hf_maskattn.auto import find_model_class, register

Shapes = dict[str, tuple[int, ...]]
"""Shape of each tensor, by name."""

_OUR_MODULES = "hf_maskattn."

_MAX_LAYERS = 1000
"""Up to this number of layers a model is described quickly. More are accepted where the weights have as many tensors."""

_MAX_LABELS = 100_000
"""Up to this number of labels default names are created quickly. More are accepted where the weights are as large."""


def find_file(name_or_folder: str | Path, file: str) -> str | None:
    """Find a file of a model, by the folder of the model or its name on the Hub.

    Returns:
        Its path. None if there is none, or none in the cache while the Hub cannot be reached.

    Raises:
        OSError: If there is no such model, or the connection to the Hub breaks.
    """
    try:
        return cached_file(name_or_folder, file, _raise_exceptions_for_missing_entries=False)
    except httpx.HTTPError as error:
        raise _connection_error(name_or_folder, file, error) from error


def has_file(name_or_folder: str | Path, file: str) -> bool:
    """Whether a model, by its folder or name on the Hub, has a file.

    Raises:
        OSError: If there is no such model, or the Hub cannot be reached.
    """
    try:
        return cached_file(name_or_folder, file) is not None
    except OSError as error:
        # Only an error of the connection has a cause; a missing file has none.
        if error.__cause__ is None or try_to_load_from_cache(str(name_or_folder), file) is _CACHED_NO_EXIST:
            return False
        raise
    except httpx.HTTPError as error:
        raise _connection_error(name_or_folder, file, error) from error


def find_newest_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint with a model and the largest step in the folder of an interrupted run; None if there is none."""
    paths = [path.parent for path in folder.glob(f"checkpoint-*/{CONFIG_NAME}")]
    steps = {path: path.name.removeprefix("checkpoint-") for path in paths}
    return max((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]), default=None)


def suggest_checkpoint(checkpoint: Path) -> str:
    """Return what to do where a model is expected and there is only a checkpoint of an interrupted run."""
    return (
        f"Its run was interrupted. Use its newest checkpoint, {checkpoint}, or finish the run with `hf-maskattn train RECIPE "
        "--resume`."
    )


def weight_shapes(name_or_folder: str | Path) -> Shapes:
    """Read the shapes of the weights of a model, by name, from the headers of its safetensors files.

    Raises:
        OSError: If the Hub cannot be reached.
        ValueError: If the weights are missing, are not safetensors, or are truncated.
    """
    shapes: Shapes = {}
    for path in find_weight_files(name_or_folder):
        shapes |= _read_shapes(str(path))
    return shapes


def find_weight_files(name_or_folder: str | Path) -> list[Path]:
    """Find the safetensors files of a model, in the order of their names.

    Raises:
        OSError: If the Hub cannot be reached.
        ValueError: If there is none, or their index is invalid.
    """
    path = find_file(name_or_folder, SAFE_WEIGHTS_NAME)
    if path is not None:
        return [Path(path)]
    index = find_file(name_or_folder, SAFE_WEIGHTS_INDEX_NAME)
    if index is None:
        has_file(name_or_folder, SAFE_WEIGHTS_NAME)  # raises if it is the Hub that is missing
        has_pickle = find_file(name_or_folder, WEIGHTS_NAME)
        pickle_note = f" {WEIGHTS_NAME} is not loaded, because a pickle can run any code." if has_pickle else ""
        raise ValueError(
            f"{name_or_folder} must have {SAFE_WEIGHTS_NAME}, found none.{pickle_note} Save the model again with "
            "save_pretrained."
        )
    try:
        names = sorted(set(json.loads(Path(index).read_bytes())["weight_map"].values()))
        paths = [find_file(name_or_folder, name) for name in names]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is not a valid index of weights: {to_one_line(error)}.") from error
    for name, path in zip(names, paths, strict=True):
        if path is None:
            raise ValueError(f"{name_or_folder} has no {name}, which its {SAFE_WEIGHTS_INDEX_NAME} names.")
    return [Path(path) for path in paths if path is not None]


def summarize_shapes(shapes: Shapes) -> str:
    """Return the number of parameters and tensors, and the largest dimension, in words."""
    count = sum(math.prod(shape) for shape in shapes.values())
    return f"{count:,} parameters in {len(shapes)} tensors, none wider than {largest_dimension(shapes):,}"


def largest_dimension(shapes: Shapes) -> int:
    """Return the largest size of any tensor in any dimension."""
    return max((size for shape in shapes.values() for size in shape), default=0)


def to_one_line(error: BaseException) -> str:
    """Return the message of an error on one line, with the type of an error that is not meant for users."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"


def load_config(name_or_folder: str | Path, *, trust_remote_code: bool = False, **changes: Any) -> PreTrainedConfig:
    """Load the configuration of a model.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.
        trust_remote_code: Whether to run the code next to the weights.
        **changes: Fields to change.

    Returns:
        The configuration, with `attn_implementation="eager"`, which some audits need.

    Raises:
        FileNotFoundError: If there is no such folder or name, or the Hub cannot be reached.
        ValueError: If transformers does not know the model, or its configuration is invalid.
    """
    register()
    try:
        path = cached_file(name_or_folder, CONFIG_NAME)
    except Exception as error:  # a broken connection raises errors of httpx, which are not OSErrors
        raise FileNotFoundError(
            f"The model {str(name_or_folder)!r} is not a folder and could not be loaded from the Hub: {error}"
        ) from error
    if path is None:
        checkpoint = find_newest_checkpoint(Path(name_or_folder))
        way_out = "Use a folder written by save_pretrained." if checkpoint is None else suggest_checkpoint(checkpoint)
        raise FileNotFoundError(f"{name_or_folder} has no {CONFIG_NAME}. {way_out}")
    try:
        raw = json.loads(Path(path).read_bytes())
        if not isinstance(raw, dict):
            raise ValueError("it must be a JSON object")
        _check_number_of_labels(raw, name_or_folder)
        config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=trust_remote_code, **changes)
        # The file may name a kernel on the Hub in this field, which would be run. The argument does not override the field.
        config._attn_implementation = "eager"
        if type(config).__module__.startswith(_OUR_MODULES):
            _check_names(config)
        return config
    except Exception as error:
        raise ValueError(f"The {CONFIG_NAME} of {name_or_folder} is not valid: {to_one_line(error)}.") from error


def load_verified_model(
    auto_class: Any,
    name_or_folder: str | Path,
    config: PreTrainedConfig,
    *,
    trust_remote_code: bool = False,
    new_head: bool = False,
    **settings: Any,
) -> PreTrainedModel:
    """Load a model after verifying that its weights match its configuration.

    Args:
        auto_class: The Auto class or model class to load it with.
        name_or_folder: Folder of the model, or its name on the Hub.
        config: Its configuration, from `load_config`.
        trust_remote_code: Whether to run the code next to the weights.
        new_head: Whether the head is initialized where the weights have another one or none.
        **settings: Further arguments of `from_pretrained`.

    Returns:
        The model.

    Raises:
        OSError: If the weights cannot be downloaded from the Hub.
        ValueError: If the weights are not safetensors, are damaged, or do not match the configuration.
    """
    shapes = weight_shapes(name_or_folder)
    _check_number_of_layers(config, shapes, name_or_folder)
    model_class = find_model_class(auto_class, config)
    if getattr(model_class, "__module__", "").startswith(_OUR_MODULES) and not new_head:
        check_weights_match(build_meta_model(model_class, config, shapes, name_or_folder), shapes, name_or_folder)
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
        raise ValueError(f"The model {name_or_folder} could not be loaded: {to_one_line(error)}.") from error


def build_meta_model(
    model_class: Callable[[PreTrainedConfig], PreTrainedModel],
    config: PreTrainedConfig,
    shapes: Shapes,
    name_or_folder: str | Path,
) -> PreTrainedModel:
    """Build a model on the meta device: it has shapes and takes no memory.

    Args:
        model_class: A model class, or a function that builds a model of transformers.
        config: Its configuration.
        shapes: Shapes of the weights that it is expected to have.
        name_or_folder: Their source, for errors.

    Raises:
        ValueError: If the configuration is impossible, or has more layers than the weights have tensors.
    """
    _check_number_of_layers(config, shapes, name_or_folder)
    try:
        with torch.device("meta"):
            return model_class(config)
    except Exception as error:
        raise ValueError(
            f"No model can be built from the {CONFIG_NAME} of {name_or_folder} ({to_one_line(error)}). Its weights are "
            f"{summarize_shapes(shapes)}."
        ) from error


def check_weights_match(model: PreTrainedModel, shapes: Shapes, name_or_folder: str | Path) -> None:
    """Reject weights that do not have all tensors of a model, from `build_meta_model`, in the right shapes.

    A base model accepts the weights of a model with a head.

    Raises:
        ValueError: If a tensor is missing, or has another shape.
    """
    expected, actual = _expected_shapes(model), _strip_prefix(model, shapes)
    for name, shape in expected.items():
        if actual.get(name) != shape:
            found = f"is {list(actual[name])}" if name in actual else "is missing"
            raise ValueError(
                f"The weights of {name_or_folder} do not match its {CONFIG_NAME}: {name} {found}, expected {list(shape)}. In "
                f"total, {summarize_shapes(expected)} are expected, the weights are {summarize_shapes(shapes)}."
            )


def list_differing_weights(model: PreTrainedModel, other: PreTrainedModel) -> list[str]:
    """List the weights of two models from `build_meta_model` that only one of them has, or that have different shapes."""
    ours, theirs = _expected_shapes(model), _expected_shapes(other)
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def _connection_error(name_or_folder: str | Path, file: str, error: Exception) -> OSError:
    return OSError(f"The connection to the Hub broke while {file} of {name_or_folder} was requested: {error}")


def _read_shapes(path: str) -> Shapes:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a complete safetensors file: {to_one_line(error)}.") from error


def _check_number_of_labels(raw: dict[str, Any], name_or_folder: str | Path) -> None:
    """Reject a number of labels for which creating default names would take too long, unless the weights are as large."""
    number = raw.get("num_labels")
    if isinstance(number, int) and number > _MAX_LABELS:
        shapes = weight_shapes(name_or_folder)
        if number > largest_dimension(shapes):
            raise ValueError(f"num_labels must match the weights, got {number}. The weights are {summarize_shapes(shapes)}")


def _check_names(config: PreTrainedConfig) -> None:
    """Check the fields of transformers that this package reads."""
    architectures, labels = config.architectures, config.id2label
    is_list = isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    if architectures is not None and not is_list:
        raise ValueError(f"architectures must be a list of names, got {architectures!r}")
    if sorted(labels) != list(range(len(labels))):
        raise ValueError(f"the keys of id2label must be 0 to {len(labels) - 1}, got {sorted(labels)}")


def _check_number_of_layers(config: PreTrainedConfig, shapes: Shapes, name_or_folder: str | Path) -> None:
    for name in ("num_hidden_layers", "decoder_layers"):
        layers = getattr(config, name, None)
        if isinstance(layers, int) and layers > max(len(shapes), _MAX_LAYERS):
            raise ValueError(
                f"{name} in the {CONFIG_NAME} of {name_or_folder} must match the weights, got {layers}. The weights are "
                f"{summarize_shapes(shapes)}."
            )


def _expected_shapes(model: PreTrainedModel) -> Shapes:
    tied = model.all_tied_weights_keys
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}


def _strip_prefix(model: PreTrainedModel, shapes: Shapes) -> Shapes:
    """Rename the tensors of a file to the names in a model, which may be the base model of one with a head."""
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name in _expected_shapes(model)):
        return shapes
    return {name.removeprefix(prefix): shape for name, shape in shapes.items()}


def download_revision(name_or_folder: str | Path, revision: str | None) -> str | Path:
    """Download a revision of a model on the Hub: a branch, tag or commit; None changes nothing.

    Returns:
        The folder of the download, or `name_or_folder`.

    Raises:
        ValueError: If a revision is given for a folder.
        FileNotFoundError: If there is no such model or revision, or the Hub cannot be reached.
    """
    if revision is None:
        return name_or_folder
    if Path(name_or_folder).exists():
        raise ValueError(f"revision is only for models on the Hub, got {revision!r} for the folder {name_or_folder}.")
    try:
        return snapshot_download(
            str(name_or_folder), revision=revision, ignore_patterns=["*.bin", "*.pt", "*.pkl", "checkpoint-*"]
        )
    except Exception as error:
        raise FileNotFoundError(
            f"Revision {revision!r} of {name_or_folder} could not be loaded from the Hub: {to_one_line(error)}."
        ) from error


def find_recipe(name_or_folder: str | Path) -> Path:
    """Find the file of the recipe of a model, by the folder of the model or its name on the Hub.

    Raises:
        FileNotFoundError: If the model has none.
    """
    path = find_file(name_or_folder, "recipe.yaml")
    if path is None:
        raise FileNotFoundError(f"{name_or_folder} has no recipe.yaml. Pass a recipe after the model.")
    return Path(path)
