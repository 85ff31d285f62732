"""Values of each field of `TrainingArguments` that work or raise an error: cases of test_training_arguments.py and its guide.

To update the guide: python -m tests.training.argument_cases
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import Seq2SeqTrainingArguments

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from tests.other_versions import ACTIVATION_CHECKPOINTING
from tests.training.toy_recipe import write_recipe

GUIDE = Path(__file__).parents[2] / "docs" / "training_arguments.md"

TASKS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "single label": ("text-classification", {}, None),
    "multi-label": (
        "text-classification",
        {"problem_type": "multi_label_classification"},
        lambda row: {**row, "label": [row["label"]]},
    ),
    "regression": ("text-classification", {"problem_type": "regression"}, lambda row: {**row, "label": len(row["text"]) / 10}),
    "token-classification": ("token-classification", {}, None),
    "fill-mask": ("fill-mask", {}, None),
    "text2text-generation": ("text2text-generation", {}, None),
}
"""Task, fields of the model, and function that changes the rows, for each kind of run."""

GENERATION = ("text2text-generation",)
OTHERS = tuple(name for name in TASKS if name not in GENERATION)
WITHOUT_CLASSES = ("multi-label", "regression")


@dataclass(frozen=True)
class Case:
    """A setting and the runs that it works for.

    Args:
        settings: Fields of the group `training`.
        works: Kinds of runs that train with it. The others raise an error.
        needs: What only some machines have. Without it the setting raises an error.
        alone: Whether it is tested without other settings, because it changes their meaning.
        slow: Whether a run takes several seconds.
    """

    settings: dict[str, Any]
    works: tuple[str, ...] = tuple(TASKS)
    needs: str = ""
    alone: bool = False
    slow: bool = False


def _works(*values: Any, also: dict[str, Any] | None = None, **more: Any):
    return [(value, also or {}, more) for value in values]


def _invalid(*values: Any, also: dict[str, Any] | None = None):
    return _works(*values, also=also, works=())


_ADAMW = {"optim": "adamw_torch"}
_WORKER = {"dataloader_num_workers": 1}
_STEPS = {"eval_strategy": "steps", "save_strategy": "steps"}
_NO_NEW_NAME = {"activation_checkpointing": None} if ACTIVATION_CHECKPOINTING == "activation_checkpointing" else {}
_INSTALLED = (
    *("adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit", "ademamix"),
    *("adamw_bnb_8bit", "adamw_8bit", "lion_8bit", "lion_32bit", "rmsprop_bnb", "grokadamw", "lomo", "schedule_free_adamw"),
    *("stable_adamw", "galore_adamw", "apollo_adamw"),
)

_FIELDS: dict[str, list] = {
    "per_device_train_batch_size": _works(4, 100) + _invalid(0, -1),
    "num_train_epochs": _works(0.5, 2) + _invalid(0, -1),
    "max_steps": _works(1, -1) + _invalid(0, -5),
    "learning_rate": _works(0, 0.1) + _invalid(-1.0),
    "lr_scheduler_type": [
        *_works("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
        *_works("reduce_lr_on_plateau", "greedy", also={"eval_strategy": "epoch"}),
        *_invalid("reduce_lr_on_plateau", "greedy", also={"eval_strategy": "no"}),
        *_invalid("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay"),
    ],
    "lr_scheduler_kwargs": [
        *_works({"min_lr": 1e-3}, also={"lr_scheduler_type": "cosine_with_min_lr"}),
        *_works({"min_lr_rate": 0.1}, also={"lr_scheduler_type": "cosine_warmup_with_min_lr"}),
        *_works({"num_decay_steps": 1}, also={"lr_scheduler_type": "warmup_stable_decay"}),
        *_works({"lr_end": 1e-4, "power": 2.0}, also={"lr_scheduler_type": "polynomial", "learning_rate": 0.01}),
        *_invalid({"lr_end": 1.0}, also={"lr_scheduler_type": "polynomial"}),
        *_invalid({"min_lr": 1e-3}, also={"lr_scheduler_type": "constant"}),
        *_invalid({"nonsense": 1}, "nonsense"),
    ],
    "warmup_steps": [
        *_works(1, 0.5, also={"lr_scheduler_type": "linear"}),
        *_invalid(-1),
        *_invalid(1, also={"lr_scheduler_type": "constant"}),
    ],
    "optim": [
        *_works("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"),
        *_works(*_INSTALLED, needs="its package", alone=True),
        *_invalid("adam"),
    ],
    "optim_args": [
        *_works("momentum=0.9", also={"optim": "sgd"}),
        *_works("momentum=0.9,alpha=0.9", also={"optim": "rmsprop"}),
        *_invalid("amsgrad=true", "nonsense"),
        *_invalid("momentum=much", also={"optim": "sgd"}),
    ],
    "optim_target_modules": _invalid("all-linear"),
    "weight_decay": _works(0.1) + _invalid(-0.1),
    "adam_beta1": _works(0.5, also=_ADAMW) + _invalid(1.5) + _invalid(0.5, also={"optim": "sgd"}),
    "adam_beta2": _works(0.9, also=_ADAMW) + _invalid(1.0),
    "adam_epsilon": _works(1e-6, also=_ADAMW) + _invalid(0.0, -1.0),
    "gradient_accumulation_steps": _works(2, 50) + _invalid(0, -1),
    "average_tokens_across_devices": _works(False),
    "max_grad_norm": _works(0.0, 0.5) + _invalid(-1.0),
    "label_smoothing_factor": [
        *_works(0.1, works=tuple(name for name in TASKS if name not in WITHOUT_CLASSES)),
        *_invalid(1.0, -0.1),
    ],
    "bf16": _works(True) + _invalid(True, also={"fp16": True}),
    "fp16": _works(True, needs="an accelerator", alone=True),
    "bf16_full_eval": _works(True),
    "fp16_full_eval": _works(True, alone=True),
    "tf32": _works(False) + _works(True, needs="a GPU that has it", alone=True),
    "activation_checkpointing": _works(True),
    "activation_checkpointing_kwargs": [
        *_works({"use_reentrant": False}, also={"activation_checkpointing": True}),
        *_invalid({"use_reentrant": False}),
    ],
    "gradient_checkpointing": _works(True, also=_NO_NEW_NAME),
    "gradient_checkpointing_kwargs": [
        *_works({"use_reentrant": False}, also={"gradient_checkpointing": True, **_NO_NEW_NAME}),
        *_invalid({"use_reentrant": False}),
    ],
    "torch_compile": _works(True, also={"torch_compile_backend": "eager"}, alone=True, slow=True),
    "torch_compile_backend": _invalid("nonsense") + _invalid("eager", also={"torch_compile": False}),
    "torch_compile_mode": _invalid("nonsense") + _invalid("default", also={"torch_compile_backend": "eager"}),
    "neftune_noise_alpha": _works(5.0) + _invalid(0.0, -5.0),
    "torch_empty_cache_steps": _works(1) + _invalid(0),
    "auto_find_batch_size": _works(True),
    "logging_strategy": _works("no", "epoch", "steps"),
    "logging_steps": [
        *_works(1, 0.5, also={"logging_strategy": "steps"}),
        *_invalid(0, -1),
        *_invalid(1, also={"logging_strategy": "epoch"}),
    ],
    "logging_first_step": _works(True),
    "log_on_each_node": _works(False),
    "logging_nan_inf_filter": _works(False),
    "include_num_input_tokens_seen": _works("all", "non_padding", True) + _invalid("nonsense"),
    "log_level": _works("error") + _invalid("nonsense"),
    "log_level_replica": _works("error") + _invalid("nonsense"),
    "disable_tqdm": _works(True),
    "report_to": [
        *_works("none"),
        *_works("tensorboard", "wandb", "trackio", "swanlab", needs="its package", alone=True),
        *_invalid("nonsense"),
    ],
    "run_name": _works("name"),
    "project": _works("name"),
    "trackio_space_id": _works("name"),
    "trackio_bucket_id": _works("name"),
    "trackio_static_space_id": _works("name"),
    "eval_strategy": _works("no", alone=True) + _works("epoch") + _works("steps", also={"eval_steps": 1}, alone=True),
    "eval_steps": [
        *_works(0.5, also=_STEPS, alone=True),
        *_invalid(0, -1, also=_STEPS),
        *_invalid(1, also={"eval_strategy": "epoch"}),
    ],
    "eval_delay": _works(1, 100) + _invalid(-1),
    "per_device_eval_batch_size": _works(1, 5, 100) + _invalid(0, -1),
    "prediction_loss_only": _works(True, alone=True),
    "eval_on_start": _works(True),
    "eval_accumulation_steps": _works(1, 2) + _invalid(0, -1),
    "save_only_model": _works(True),
    "save_strategy": [
        *_works("epoch"),
        *_works("no", "best", alone=True),
        *_works("steps", also={"save_steps": 2}, alone=True),
        *_invalid("best", also={"eval_strategy": "no"}),
    ],
    "save_steps": [
        *_works(1, also=_STEPS, alone=True),
        *_invalid(0, -1, also=_STEPS),
        *_invalid(1, also={"save_strategy": "epoch"}),
    ],
    "save_total_limit": _works(1) + _invalid(0, -1),
    "hub_private_repo": _works(True),
    "hub_model_id": _works("name"),
    "hub_strategy": _works("end"),
    "hub_revision": _works("main"),
    "load_best_model_at_end": [
        *_works(False),
        *_works(True, also={"save_only_model": True}),
        *_invalid(True, also={"save_strategy": "no"}),
        *_invalid(True, also={"eval_strategy": "no"}),
    ],
    "metric_for_best_model": _works("loss") + _invalid("nonsense", "runtime"),
    "greater_is_better": _works(False),
    "ignore_data_skip": _works(True),
    "restore_callback_states_from_checkpoint": _works(True),
    "full_determinism": _works(True),
    "seed": _works(7) + _invalid(-1, 2**32),
    "data_seed": _works(7) + _invalid(-1),
    "use_cpu": _works(True) + _works(False, alone=True),
    "accelerator_config": [
        *_works({"non_blocking": True}, {"gradient_accumulation_kwargs": {"sync_each_batch": True}}),
        *_invalid({"split_batches": True}, {"dispatch_batches": True}, {"even_batches": False}),
        *_invalid({"use_seedable_sampler": False}, {"use_configured_state": True}, {"nonsense": 1}, "nonsense.json"),
        *_invalid({"gradient_accumulation_kwargs": {"num_steps": 2}}),
    ],
    "dataloader_drop_last": _works(True),
    "dataloader_num_workers": _works(1) + _invalid(-1),
    "dataloader_pin_memory": _works(False),
    "dataloader_persistent_workers": _works(True, also=_WORKER) + _invalid(True),
    "dataloader_prefetch_factor": _works(1, also=_WORKER) + _invalid(0, also=_WORKER) + _invalid(2),
    "dataloader_multiprocessing_context": [
        *_works("spawn", also=_WORKER, alone=True, slow=True),
        *_invalid("nonsense", also=_WORKER),
        *_invalid("spawn"),
    ],
    "dataloader_in_order": _works(False),
    "train_sampling_strategy": _works("random", "sequential", "group_by_length") + _invalid("nonsense", "batch_rebalance"),
    "ddp_find_unused_parameters": _works(True),
    "ddp_bucket_cap_mb": _works(5) + _invalid(0),
    "ddp_broadcast_buffers": _works(True),
    "ddp_static_graph": _works(True),
    "ddp_backend": _works("gloo", needs="more than one process", alone=True) + _invalid("nonsense"),
    "ddp_timeout": _works(60) + _invalid(0),
    "debug": _invalid("underflow_overflow", "tpu_metrics_debug", "nonsense"),
    "skip_memory_metrics": _works(False),
    "predict_with_generate": [
        *_works(True, works=GENERATION),
        *_works(False, also={"prediction_loss_only": True}, works=GENERATION, alone=True),
        *_invalid(False),
    ],
    "generation_max_length": _works(3, works=GENERATION) + _invalid(1),
    "generation_num_beams": _works(2, works=GENERATION) + _invalid(0),
    # Fields that must keep their default, with another value.
    "batch_eval_metrics": _invalid(True),
    "eval_do_concat_batches": _invalid(False),
    "eval_use_gather_object": _invalid(True),
    "include_for_metrics": _invalid(["inputs"], ["nonsense"]),
    "label_names": _invalid(["labels"], []),
    "length_column_name": _invalid("input_ids"),
    "remove_unused_columns": _invalid(False),
    "sortish_sampler": _invalid(True),
    "generation_config": _invalid("gpt2"),
    "use_cache": _invalid(True),
    "use_liger_kernel": _invalid(True),
    "liger_kernel_config": _invalid({"rope": True}),
    "enable_jit_checkpoint": _invalid(True),
    "save_on_each_node": _invalid(True),
    "fsdp": _invalid("full_shard"),
    "fsdp_config": _invalid({"min_num_params": 3}),
    "deepspeed": _invalid("nonsense.json", {"train_batch_size": 4}),
    "parallelism_config": _invalid({}),
    # Fields that the command sets.
    "hub_token": _invalid("token"),
    "hub_always_push": _invalid(True),
    "do_train": _invalid(True),
    "do_eval": _invalid(True),
    "do_predict": _invalid(True),
    "resume_from_checkpoint": _invalid("checkpoint-1"),
    "local_rank": _invalid(0),
}

ELSEWHERE = {
    "output_dir": "the folder of the run",
    "push_to_hub": "publishes the run, tested by tests/training/test_results.py and tests/hub",
}
"""Fields that every run sets or that need a Hub, with the text of the guide."""

CASES: dict[str, list[Case]] = {
    name: [Case({name: value, **also}, **more) for value, also, more in cases]
    for name, cases in _FIELDS.items()
    if name.removesuffix("_kwargs") != "activation_checkpointing" or ACTIVATION_CHECKPOINTING in name
}


def fields_without_case() -> set[str]:
    """Return the fields of the installed version of transformers that have no case."""
    return {item.name for item in dataclasses.fields(Seq2SeqTrainingArguments)} - CASES.keys() - ELSEWHERE.keys()


def overrides(settings: dict[str, Any]) -> list[str]:
    """Return settings as overrides of the command line. JSON is YAML."""
    return [f"training.{key}={json.dumps(value)}" for key, value in settings.items()]


def write_toys(folder: Path) -> dict[str, Path]:
    """Write data and recipe of each kind of run."""
    recipes = {}
    for name, (task, model, make) in TASKS.items():
        home = folder / name.replace(" ", "-")
        home.mkdir()
        training = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "per_device_eval_batch_size": 5}
        recipes[name] = write_recipe(home, task, model=model, make=make, training=training)
    return recipes


def error_of(recipe: Path, settings: dict[str, Any]) -> str | None:
    """Return the error that settings raise when a recipe is checked, or None."""
    try:
        training_arguments(load_recipe(recipe, overrides(settings)))
    except (ValueError, TypeError, OSError, ImportError) as error:
        return " ".join(str(error).split())
    return None


def guide(recipes: dict[str, Path]) -> str:
    """Return the table of the guide."""
    lines = ["| Field | Works | Raises an error |", "|---|---|---|"]
    for item in dataclasses.fields(Seq2SeqTrainingArguments):
        if item.name in ELSEWHERE:
            lines.append(f"| `{item.name}` | {ELSEWHERE[item.name]} | |")
            continue
        works: dict[str, list[str]] = {}  # values, by the other settings that they need
        invalid = []
        for case in CASES[item.name]:
            value = f"`{json.dumps(case.settings[item.name])}`"
            others = [f"`{key}={json.dumps(other)}`" for key, other in case.settings.items() if key != item.name]
            more = f" with {', '.join(others)}" if others else ""
            without = [task for task in TASKS if task not in case.works]
            if case.works:
                works.setdefault(more + (f", if the machine has {case.needs}" if case.needs else ""), []).append(value)
            if without and not case.needs:
                of = f" ({', '.join(without)})" if case.works else ""
                invalid.append(f"{value}{more}{of}: {_cell(error_of(recipes[without[0]], case.settings))}")
        shown = "; ".join(", ".join(values) + more for more, values in works.items())
        lines.append(f"| `{item.name}` | {shown} | {'<br>'.join(invalid)} |")
    return "\n".join(lines) + "\n"


_MAX_CHARACTERS = 240
BEGIN, END = "<!-- table: python -m tests.training.argument_cases -->\n", "<!-- end of the table -->\n"


def with_table(text: str, table: str) -> str:
    """Replace the table in the text of the guide."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + table + END + rest.partition(END)[2]


def _cell(message: str | None) -> str:
    """Return a message without its file, which is temporary."""
    message = re.sub(r"^override '[\w.]+': ", "", str(message)).replace("|", "\\|")
    return message if len(message) <= _MAX_CHARACTERS else message[:_MAX_CHARACTERS].rpartition(" ")[0] + " ..."


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        GUIDE.write_text(with_table(GUIDE.read_text(encoding="utf-8"), guide(write_toys(Path(folder)))), encoding="utf-8")
