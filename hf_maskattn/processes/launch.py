"""Whether the processes of a run are those that its launcher meant to start."""

import logging
import os

from transformers import TrainingArguments

logger = logging.getLogger(__name__)

_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


def check_launch(args: TrainingArguments) -> None:
    """Refuse to train where processes would not work together as asked for.

    Args:
        args: The arguments of Trainer, which joined the processes.

    Raises:
        ValueError: If several processes were started but each is alone; if a model is to be sharded on CPUs, which accelerate
            leaves undone without a word; or if nobody would gather its weights at the end.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and args.world_size == 1:
        raise ValueError(
            f"{started} processes were started, but found no accelerators and would each train alone: to train on their CPUs "
            "set training.use_cpu=true."
        )
    for variable, name in _SHARDED.items():
        if _asked_for(variable) and args.device.type == "cpu":
            raise ValueError(f"accelerate shards models by {name} on accelerators alone: launch without it on CPUs.")
    if _asked_for("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_STATE_DICT_TYPE", "").startswith("SHARDED"):
        raise ValueError(
            "of weights saved as SHARDED_STATE_DICT no model is left that loads: launch with --fsdp_state_dict_type "
            "FULL_STATE_DICT, or set fsdp_state_dict_type in the file of accelerate."
        )
    if started == 1 and "MASTER_PORT" in os.environ and _asked_for("ACCELERATE_USE_CPU"):
        logger.warning(
            "accelerate launch --cpu started one process: it leaves several to mpirun (--mpirun_hostfile). To start them "
            "itself: accelerate launch --multi_gpu --num_processes N ... training.use_cpu=true"
        )


def _asked_for(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"
