"""Runs commands of hf-maskattn one after the other in each process of a launch: to start a process costs seconds."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

from hf_maskattn.cli import app
from hf_maskattn.training import train as train_module
from hf_maskattn.training.callbacks import KeepTrackOfBest
from tests.distributed.shard_models import shard_models


class AtStep(KeepTrackOfBest):
    """Has one process get Ctrl-C ("interrupt") or fail ("fail") at the beginning of a step, counted from 1."""

    def __init__(self, event, step, rank):
        self.event, self.step, self.rank = event, step, rank

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step and args.process_index == self.rank:
            if self.event == "fail":
                raise ValueError("this row is broken")
            os.kill(os.getpid(), signal.SIGINT)


def run(commands):
    """Runs the commands, each `{"arguments": [...]}`, with what is to happen as `"at_step"`, or `{"shard_models": FOLDER}`."""
    # A shell that starts a command in the background has it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    for command in commands:
        if "shard_models" in command:
            shard_models(Path(command["shard_models"]))
            continue
        event = command.get("at_step")
        train_module.KeepTrackOfBest = partial(AtStep, *event) if event else KeepTrackOfBest
        code = app(command["arguments"], prog_name="hf-maskattn", standalone_mode=False)
    sys.exit(code)


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
