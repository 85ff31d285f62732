"""The files of a model folder that are published: collected, checked, and loaded once without this package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import yaml
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_import_files

from hf_maskattn.auto import FAMILIES, load_family
from hf_maskattn.hub.model_card import parse_model_card
from hf_maskattn.loading import find_newest_checkpoint, suggest_checkpoint
from hf_maskattn.model.remote_code import CODE_VERSION, install_command, is_newer_version
from hf_maskattn.recipes.recipe import parse_yaml

CARD_FILE = "README.md"
CONFIG_FILE = "config.json"
RECIPE_FILE = "recipe.yaml"
_WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_TOKENIZER_FILE = "tokenizer.json"
_OPTIONAL_FILES = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "attention.png",
    "metrics.json",
    "report.json",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    RECIPE_FILE,
    CARD_FILE,
)
_OBSOLETE_FILES = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|pytorch_model.*|training_args\.bin")


def copy_published_files(folder: Path, target: Path) -> None:
    """Copy the files of a model folder that are published, with the code of this package.

    The code in the folder is not copied: it is unknown, and the model was tested with the code of this package.

    Args:
        folder: Folder written by `save_pretrained` of model and tokenizer, or by a training run.
        target: An empty folder.

    Raises:
        FileNotFoundError: If there is no such folder, or no configuration, weights or tokenizer in it.
        ValueError: If the files are damaged, of another model type, or of a newer version of this package.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} does not exist. Use one written by a training run or save_pretrained.")
    checkpoint = find_newest_checkpoint(folder)
    way_out = "Save the model with save_pretrained." if checkpoint is None else suggest_checkpoint(checkpoint)
    config = _read_json(_require_file(folder, CONFIG_FILE, way_out))
    _check_config(folder, config)
    architecture = next(iter(config.get("architectures") or []), "")
    _, models = load_family(config["model_type"], architecture)
    config |= {"auto_map": dict(models.AUTO_MAP), "code_version": CODE_VERSION}
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _require_file(folder, _TOKENIZER_FILE, "Save the tokenizer with save_pretrained.")
    names = [*_list_weights(folder), _TOKENIZER_FILE, *(name for name in _OPTIONAL_FILES if (folder / name).is_file())]
    for name in names:
        shutil.copyfile(folder / name, target / name)
    for source in code_files(models):
        shutil.copyfile(source, target / source.name)
    if (target / RECIPE_FILE).is_file():
        _strip_folders(target / RECIPE_FILE)
    if (target / CARD_FILE).is_file():
        parse_model_card((target / CARD_FILE).read_text(encoding="utf-8"))


def code_files(models: ModuleType) -> list[Path]:
    """List the code that is saved next to the weights of a model, given the module of its class."""
    modeling = Path(str(models.__file__))
    return [modeling, *(Path(path) for path in get_relative_import_files(modeling))]


def is_obsolete(name: str, published: set[str]) -> bool:
    """Whether a file of a repository belongs to an earlier model than the published files, and has to be removed.

    Other weights could be loaded in place of the new ones, and pickles are never published.
    """
    return name not in published and _OBSOLETE_FILES.fullmatch(name) is not None


_LOAD_SCRIPT = """
import json, sys
sys.modules["hf_maskattn"] = None  # as if it were not installed
import torch, transformers, transformers.dynamic_module_utils

folder = sys.argv[1]
problems = []
config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
names = {path.rpartition(".")[2]: auto for auto, path in config.auto_map.items()}
auto_name = names[config.architectures[0]]
if hasattr(transformers, auto_name):
    loader = getattr(transformers, auto_name)
else:  # both heads, for which transformers has no Auto class
    loader = transformers.dynamic_module_utils.get_class_from_dynamic_module(config.auto_map[auto_name], folder)
model, info = loader.from_pretrained(
    folder, trust_remote_code=True, dtype="auto", ignore_mismatched_sizes=True, output_loading_info=True
)
for kind, text in {"missing": "are missing", "unexpected": "are unexpected", "mismatched": "have other sizes"}.items():
    keys = sorted(key if isinstance(key, str) else key[0] for key in info[f"{kind}_keys"])
    if keys:
        problems.append(f"weights {text} ({', '.join(keys)})")
not_finite = sorted(name for name, weight in model.named_parameters() if not weight.isfinite().all())
if not_finite:
    problems.append(f"weights are not finite ({', '.join(not_finite)})")
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
num_embeddings = model.get_input_embeddings().weight.shape[0]
if len(tokenizer) > num_embeddings:
    problems.append(f"the tokenizer has {len(tokenizer)} tokens, the model has {num_embeddings} embeddings")
else:
    inputs = tokenizer("a text", return_tensors="pt")
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[config.decoder_start_token_id]])
    with torch.no_grad():
        model.eval()(**inputs)
print(json.dumps({"problems": problems, "num_parameters": model.num_parameters()}))
"""


def load_without_package(folder: Path) -> int:
    """Load a model with the code next to its weights, in a process without this package and without tokens, and run it once.

    Returns:
        Number of parameters of the model.

    Raises:
        ValueError: If it does not load, or configuration, weights and tokenizer do not match.
    """
    with TemporaryDirectory() as modules:
        tokens = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
        environment = {name: value for name, value in os.environ.items() if name not in tokens}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": modules}
        result = subprocess.run(
            [sys.executable, "-c", _LOAD_SCRIPT, str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode != 0:
        raise ValueError(f"The model does not load: {(result.stderr.strip().splitlines() or ['no error message'])[-1]}")
    report = json.loads(result.stdout.strip().splitlines()[-1])
    if report["problems"]:
        raise ValueError(f"The files of the model do not match: {'; '.join(report['problems'])}.")
    return report["num_parameters"]


def _strip_folders(recipe: Path) -> None:
    """Replace absolute paths in a recipe by file names, because they describe this machine."""
    try:
        groups = parse_yaml(recipe.read_text(encoding="utf-8"), recipe.name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{recipe.name} is not valid YAML: {error}.") from error
    for values in groups.values() if isinstance(groups, dict) else ():
        for key, value in values.items() if isinstance(values, dict) else ():
            # A label or a separator may be a slash.
            if isinstance(value, str) and Path(value).is_absolute() and len(Path(value).parts) > 2:
                values[key] = Path(value).name
    recipe.write_text(yaml.safe_dump(groups, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _check_config(folder: Path, config: object) -> None:
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG_FILE} must be the configuration of a model.")
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(f"The model in {folder} must be a {' or '.join(FAMILIES)} model, got {model_type!r}.")
    if is_newer_version(config.get("code_version")):
        raise ValueError(
            f"{folder} was saved by hf_maskattn {config['code_version']}, which is newer than {CODE_VERSION}. Upgrade to "
            f"publish the model with its own code: {install_command(upgrade=True)}"
        )


def _list_weights(folder: Path) -> list[str]:
    """List the files of the weights, and check that the size of each matches its header."""
    if (folder / _WEIGHTS_FILE).is_file():
        names = [_WEIGHTS_FILE]
    elif (folder / _INDEX_FILE).is_file():
        try:
            shards = sorted(set(_read_json(folder / _INDEX_FILE)["weight_map"].values()))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / _INDEX_FILE} names no files of weights.") from error
        for name in shards:
            if not (isinstance(name, str) and _SHARD.fullmatch(name)):
                raise ValueError(
                    f"{folder / _INDEX_FILE} names {name!r}, expected names like model-00001-of-00002.safetensors."
                )
            _require_file(folder, name, "Save the model again with save_pretrained.")
        names = [_INDEX_FILE, *shards]
    else:
        way_out = "Save the model with save_pretrained. Pickled weights (.bin) are not published."
        _require_file(folder, _WEIGHTS_FILE, way_out)
    for name in names:
        if name == _INDEX_FILE:
            continue
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is not a complete safetensors file ({error}). Save the model again.") from error
    return names


def _require_file(folder: Path, name: str, way_out: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{folder} has no {name}. {way_out}")
    return folder / name


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
