"""Ctrl-C in training: the first one saves a checkpoint and stops, the second one stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainingArguments

_STDERR = 2


class TrainingInterrupted(Exception):  # noqa: N818 (the run stopped because it was asked to)
    """A run was stopped by Ctrl-C after a checkpoint was saved.

    Args:
        checkpoint: Where the run can be resumed from.
    """

    def __init__(self, checkpoint: Path):
        super().__init__(f"Stopped; the run can be continued from {checkpoint}.")
        self.checkpoint = checkpoint


class StopOnInterrupt(TrainerCallback):
    """Saves a checkpoint after the step in which Ctrl-C came, then raises `TrainingInterrupted`.

    At the last step of an epoch it waits for the end of the epoch, so that its evaluation is part of the checkpoint.
    Raising, rather than asking Trainer to stop, keeps Trainer from closing the run, which may delete that checkpoint.
    """

    def __init__(self) -> None:
        self.requested = False
        self._stopping = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the first SIGINT as a request to stop and leave the second one to Python; put the old handler back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _on_signal(self, signum, frame) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if os.environ.get("RANK", "0") == "0":
            # Neither print nor logging may be entered twice, and the signal may have come in the middle of one.
            os.write(_STDERR, b"\nSaving a checkpoint, then stopping; Ctrl-C again stops at once.\n")

    def on_step_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint if a stop was requested, unless the end of the epoch comes next."""
        if not float(state.epoch).is_integer() and self._all_stop(args):
            control.should_save = True

    def on_epoch_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint if a stop was requested."""
        if self._all_stop(args):
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        """Stop, now that the checkpoint is written."""
        if self._stopping:
            if args.world_size > 1:
                # A launcher ends all processes when the first one ends: none may still be writing.
                torch.distributed.barrier()
            raise TrainingInterrupted(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def _all_stop(self, args: TrainingArguments) -> bool:
        """Agree between processes, which do not get the signal in the same step."""
        if args.world_size > 1:
            requested = torch.tensor(int(self.requested), device=args.device)
            torch.distributed.all_reduce(requested, op=torch.distributed.ReduceOp.MAX)
            self.requested = bool(requested)
        self._stopping = self.requested
        return self._stopping
