"""Runs several commands of hf-maskattn in each process of a launch, because starting a process takes seconds."""

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
    """Interrupts one process ("interrupt") or raises an error in it ("fail") at the start of a step, counted from 1."""

    def __init__(self, event, step, rank):
        self.event, self.step, self.rank = event, step, rank

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step and args.process_index == self.rank:
            if self.event == "fail":
                raise ValueError("this row is broken")
            os.kill(os.getpid(), signal.SIGINT)


def run(commands):
    """Run commands: `{"arguments": [...]}`, with the arguments of `AtStep` as `"at_step"`, or `{"shard_models": FOLDER}`."""
    # A command that a shell starts in the background ignores SIGINT.
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
