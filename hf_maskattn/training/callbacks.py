"""Ctrl-C in training: the first one saves a checkpoint and stops, the second one stops at once."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from hf_maskattn.checkpoints.checkpoints import find_damage
from hf_maskattn.data.streaming import RowStream

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


logger = logging.getLogger(__name__)


class KeepTrackOfBest(TrainerCallback):
    """Finds the best checkpoint again after the folder was moved, or forgets its score if it is gone or damaged.

    Trainer remembers it by its path. Where that path is gone it forgets the checkpoint but not the score, and would in
    the end keep the last model as if it were the best.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """Look for the best checkpoint beside the others."""
        if state.best_global_step is None:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        damage = find_damage(checkpoint) if checkpoint.is_dir() else "it is gone"
        if damage is None:
            state.best_model_checkpoint = str(checkpoint)
        else:
            logger.warning(
                f"The best checkpoint so far, {checkpoint}, cannot be used ({damage}); the best is searched anew from here on."
            )
            state.best_global_step = state.best_metric = state.best_model_checkpoint = None


class SaveAtEpochEnd(TrainerCallback):
    """Puts a checkpoint that is due at the last step of an epoch off until the epoch has ended.

    A run that goes on from such a checkpoint begins with the next epoch: an evaluation at the end of this one would be lost.
    """

    def __init__(self) -> None:
        self._put_off = False

    def on_step_end(self, args, state, control, **kwargs):
        """Put a checkpoint off at the last step of an epoch or of the run."""
        if control.should_save and (float(state.epoch).is_integer() or control.should_training_stop):
            control.should_save, self._put_off = False, True

    def on_epoch_end(self, args, state, control, **kwargs):
        """Ask for the checkpoint that was put off."""
        if self._put_off:
            control.should_save, self._put_off = True, False


_WORDS = {
    "shards": "the number of files (shards) of the train split",
    "processes": "the number of processes",
    "workers": "training.dataloader_num_workers",
    "batch_size": "the rows of a batch (training.per_device_train_batch_size)",
}


class StreamPosition(TrainerCallback, ExportableState):
    """Counts the batches that were trained on, not those that a `DataLoader` has fetched ahead, and tells the stream.

    All processes take the same number of batches, so that the count of one is the count of all. Trainer writes it to
    `trainer_state.json`.
    """

    def __init__(self) -> None:
        self.batches = self.shards = self.processes = self.workers = self.batch_size = 0

    def state(self) -> dict:
        """Give what belongs into a checkpoint."""
        return {"args": {}, "attributes": dict(vars(self))}

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Let the stream begin after the batches of the checkpoint.

        Raises:
            ValueError: If the batches would not be the same ones now, since the stream is dealt or cut in another way.
        """
        stream: RowStream = train_dataloader.dataset
        self.batches, self.shards = 0, len(stream.shards)
        self.processes, self.batch_size = stream.num_processes, stream.batch_size
        self.workers = max(train_dataloader.num_workers, 1)
        if state.global_step > 0 and not args.ignore_data_skip:
            stored = state.stateful_callbacks[type(self).__name__]["attributes"]
            for name, words in _WORDS.items():
                if stored[name] != getattr(self, name):
                    raise ValueError(
                        f"{words} was {stored[name]} and is {getattr(self, name)} now, which would deal the rows of the stream "
                        f"in another way and train on some of them twice: resume with {stored[name]}."
                    )
            self.batches = stored["batches"]
        stream.skip_batches(self.batches)

    def on_step_end(self, args, state, control, **kwargs):
        """Count the batches of a step, and how much of the run is done, which Trainer forgets when it is resumed."""
        self.batches += args.gradient_accumulation_steps
        state.epoch = state.global_step / state.max_steps
