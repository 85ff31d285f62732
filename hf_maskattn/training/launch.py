"""Whether the processes of a run are those that its launcher meant to start."""

import logging
import os

import torch
from transformers import TrainingArguments

logger = logging.getLogger(__name__)

_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}

_LOAD_OF_ITS_OWN = 0.75
"""Share of a core that this process has taken by now, reading its libraries, and what a quiet machine does besides."""


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


def warn_of_busy_cores(args: TrainingArguments) -> None:
    """Report that other processes would slow down a run of several threads: each step waits for the last of its threads.

    Args:
        args: The arguments of Trainer.
    """
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    if args.device.type != "cpu" or threads == 1 or not hasattr(os, "getloadavg"):
        return
    load = os.getloadavg()[0]
    if load > cores - threads + _LOAD_OF_ITS_OWN:
        idle = max(1, int(cores - load))
        logger.warning(
            f"The load of this machine is {load:.1f} of {cores} cores, and training takes {threads} threads, which wait for "
            f"each other in every step: OMP_NUM_THREADS={idle} may be many times faster while others are at work."
        )


def _asked_for(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"
