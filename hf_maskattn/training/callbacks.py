"""Callbacks: print progress, stop on Ctrl-C with a checkpoint, stop early, save at epoch ends, and others."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from hf_maskattn.checkpoints.checkpoints import find_damage
from hf_maskattn.data.streaming import RowStream

logger = logging.getLogger(__name__)

_STDERR = 2


class TrainingInterrupted(Exception):  # noqa: N818 (the user asked for it)
    """A run was stopped by Ctrl-C after a checkpoint was saved, from which it can be resumed."""

    def __init__(self, checkpoint: Path):
        super().__init__(f"The run was stopped. It can be resumed from {checkpoint}.")
        self.checkpoint = checkpoint


class StopOnInterrupt(TrainerCallback):
    """Saves a checkpoint after the step in which Ctrl-C was pressed, then raises `TrainingInterrupted`.

    At the last step of an epoch the checkpoint is saved when the epoch has ended, so that it includes the evaluation. Setting
    `should_training_stop` instead would let Trainer end the run normally, and possibly delete that checkpoint.
    """

    def __init__(self) -> None:
        self.requested = False
        self._stopping = False

    @contextmanager
    def handle_interrupts(self) -> Iterator[None]:
        """Handle the first SIGINT as a request to stop. The second one raises `KeyboardInterrupt`."""
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
            # print and logging are not reentrant, and the signal may have interrupted one of them.
            os.write(_STDERR, b"\nSaving a checkpoint before stopping. Press Ctrl-C again to stop at once.\n")

    def on_step_end(self, args, state, control, **kwargs):
        """Save a checkpoint if a stop was requested, unless this is the last step of an epoch."""
        if not float(state.epoch).is_integer() and self._any_process_stops(args):
            control.should_save = True

    def on_epoch_end(self, args, state, control, **kwargs):
        """Save a checkpoint if a stop was requested."""
        if self._any_process_stops(args):
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        """Stop when the requested checkpoint has been saved."""
        if self._stopping:
            if args.world_size > 1:
                # A launcher ends all processes when the first one ends. The others may still be writing.
                torch.distributed.barrier()
            raise TrainingInterrupted(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def _any_process_stops(self, args: TrainingArguments) -> bool:
        """Return whether any process got the signal, which does not reach all of them in the same step."""
        self._stopping = self.requested
        if args.world_size > 1:
            stopping = torch.tensor(int(self._stopping), device=args.device)
            torch.distributed.all_reduce(stopping, op=torch.distributed.ReduceOp.MAX)
            # A signal that arrives meanwhile counts in the next step: `requested` must stay.
            self._stopping = bool(stopping)
        return self._stopping


def _evaluated_steps(state: TrainerState) -> list[int]:
    return [entry["step"] for entry in state.log_history if "eval_runtime" in entry]


def scheduled_steps(args: TrainingArguments, state: TrainerState) -> list[int]:
    """List the evaluated steps at which a run saves a checkpoint however it is stopped, and whatever its scores are."""
    steps = _evaluated_steps(state)
    return [step for step in steps if step % state.save_steps == 0] if args.save_strategy == SaveStrategy.STEPS else steps


class KeepTrackOfBest(TrainerCallback):
    """Updates the path of the best checkpoint when a run is resumed, or forgets its metric if it is missing or damaged.

    Trainer stores an absolute path. If the folder was moved, it forgets the checkpoint but not the metric, and would keep the
    last model as the best one.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """Look for the best checkpoint in the output folder."""
        if state.best_global_step is None:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        damage = find_damage(checkpoint) if checkpoint.is_dir() else "it does not exist"
        if damage is None:
            state.best_model_checkpoint = str(checkpoint)
        else:
            logger.warning(
                f"The best checkpoint so far, {checkpoint}, cannot be used ({damage}). The best of the following ones is kept."
            )
            state.best_global_step = state.best_metric = state.best_model_checkpoint = None


def is_equal_with_lower_loss(args: TrainingArguments, state: TrainerState, metrics: dict[str, float]) -> bool:
    """Return whether an evaluation has the best metric so far, and a lower loss than the best evaluation had.

    In a small validation split many evaluations have the same accuracy, the first of them long before the model is trained.
    """
    name = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
    if state.best_metric is None or metrics.get(name) != state.best_metric:
        return False
    losses = [log["eval_loss"] for log in state.log_history if log["step"] == state.best_global_step and "eval_loss" in log]
    return bool(losses) and metrics.get("eval_loss", losses[0]) < losses[0]


class StopEarly(EarlyStoppingCallback):
    """Stops training as `EarlyStoppingCallback` does, also in a resumed run, and reports the best evaluation.

    Trainer restores neither the count of evaluations nor, if a run was killed after its last evaluation, the decision to stop.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """Continue the count of a checkpoint, and stop if it is complete."""
        super().on_train_begin(args, state, control, **kwargs)
        stored = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step > 0 and stored is not None and state.best_metric is not None:
            self.early_stopping_patience_counter = stored["attributes"]["early_stopping_patience_counter"]
        self._stop_if_complete(control)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        """Count an evaluation that is not better, and stop after too many of them."""
        super().on_evaluate(args, state, control, metrics, **kwargs)
        if self._stop_if_complete(control) and state.best_global_step is not None and state.global_step < state.max_steps:
            steps = _evaluated_steps(state)
            logger.info(
                f"Stopped early after evaluation {len(steps)} (step {state.global_step} of {state.max_steps}). The best "
                f"{args.metric_for_best_model.removeprefix('eval_')}, {state.best_metric:.4g}, was reached in evaluation "
                f"{steps.index(state.best_global_step) + 1} (step {state.best_global_step})."
            )

    def _stop_if_complete(self, control) -> bool:
        is_complete = self.early_stopping_patience_counter >= self.early_stopping_patience
        control.should_training_stop = control.should_training_stop or is_complete
        return is_complete


class SaveAtEpochEnd(TrainerCallback):
    """Delays a checkpoint at the last step of an epoch until the epoch has ended.

    A run that is resumed from it starts with the next epoch, so that the evaluation of this epoch would be lost.
    """

    def __init__(self) -> None:
        self._is_delayed = False

    def on_step_end(self, args, state, control, **kwargs):
        """Delay a checkpoint at the last step of an epoch or of the run."""
        if control.should_save and (float(state.epoch).is_integer() or control.should_training_stop):
            control.should_save, self._is_delayed = False, True

    def on_epoch_end(self, args, state, control, **kwargs):
        """Save the checkpoint that was delayed."""
        if self._is_delayed:
            control.should_save, self._is_delayed = True, False


class ProgressLines(ProgressCallback):
    """Prints a line for each evaluation, and for each logged loss between evaluations, instead of the dictionaries of Trainer.

    The progress bars of Trainer stay, unless `disable_tqdm` is set. Where stdout is not a terminal, there is at most one line
    for each tenth of the training, and one with a loss only where there is none with an evaluation.

    Args:
        metric: Main metric of the task, shown with the validation loss.
    """

    def __init__(self, metric: str | None = None):
        super().__init__()
        self._metric = metric
        self._has_epochs = True
        self._losses: list[float] = []
        self._started = 0.0
        self._first_step = 0
        self._last_evaluation = self._last_line = 0  # tenths of the training
        self._last_step = -1  # of a line

    @classmethod
    def replace_default(cls, trainer: Trainer, metric: str | None = None) -> None:
        """Replace the callback of Trainer that prints. The one for notebooks and callbacks of users stay."""
        default = trainer.pop_callback(PrinterCallback) or trainer.pop_callback(ProgressCallback)
        if default is not None:
            trainer.add_callback(cls(metric))

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Start the clock and the bar."""
        self._started, self._first_step = time.perf_counter(), state.global_step
        self._has_epochs = not isinstance(getattr(train_dataloader, "dataset", None), RowStream)
        if not args.disable_tqdm:
            super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(self, args, state, control, **kwargs):
        """Advance the bar."""
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """Advance the bar of an evaluation."""
        if not args.disable_tqdm:
            super().on_prediction_step(args, state, control, eval_dataloader=eval_dataloader, **kwargs)

    def on_predict(self, args, state, control, **kwargs):
        """Remove the bar of an evaluation."""
        if self.prediction_bar is not None:
            self.prediction_bar.leave = False
        super().on_predict(args, state, control, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        if self.training_bar is not None:
            super().on_train_end(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep the training loss for the line of the evaluation that follows, or print it if none follows at this step."""
        if "loss" not in (logs or {}):
            return
        self._losses.append(logs["loss"])
        is_next = not control.should_evaluate and state.global_step > self._last_step
        if is_next and self._is_due(state, self._last_line):
            self._print(args, state, [])

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Print the validation loss, the main metric, and whether the evaluation is the best one so far."""
        super().on_evaluate(args, state, control, **kwargs)
        if self._is_due(state, self._last_evaluation):
            self._last_evaluation = self._tenth(state)
            self._print(args, state, self._describe_evaluation(args, state, metrics or {}))

    def _describe_evaluation(self, args, state, metrics: dict[str, float]) -> list[str]:
        selected = (args.metric_for_best_model or "").removeprefix("eval_")
        parts = []
        for name in dict.fromkeys(["loss", selected, self._metric]):
            value = metrics.get(f"eval_{name}")
            if value is None:
                continue
            parts.append(f"{'validation loss' if name == 'loss' else name} {_round(value)}")
            if name == selected:
                parts[-1] += self._compare_with_best(args, state, value, metrics)
        return parts

    @staticmethod
    def _compare_with_best(args, state, value: float, metrics: dict[str, float]) -> str:
        """Describe whether a value is the best one. Trainer updates its own record after the evaluation."""
        best = state.best_metric
        is_better = best is None or (value > best if args.greater_is_better else value < best)
        if is_better or is_equal_with_lower_loss(args, state, metrics):
            return " (best)"
        return f" (best: step {state.best_global_step:,})"

    @staticmethod
    def _tenth(state) -> int:
        return 10 * state.global_step // max(1, state.max_steps)

    def _is_due(self, state, last: int) -> bool:
        return state.is_world_process_zero and (sys.stdout.isatty() or self._tenth(state) > last)

    def _print(self, args, state, parts: list[str]) -> None:
        position = f"step {state.global_step:>{len(f'{state.max_steps:,}')},}/{state.max_steps:,}"
        if self._has_epochs:
            position = f"epoch {state.epoch or 0:>{len(f'{state.num_train_epochs}.00')}.2f}  {position}"
        if self._losses:
            parts = [f"train loss {_round(sum(self._losses) / len(self._losses))}", *parts]
        seconds, steps = time.perf_counter() - self._started, state.global_step - self._first_step
        clock = tqdm.format_interval(seconds)
        if 0 < steps < state.max_steps - self._first_step:
            clock += f" ({tqdm.format_interval(seconds / steps * (state.max_steps - state.global_step))} left)"
        tqdm.write("  ".join([position, *parts, clock]))
        sys.stdout.flush()
        self._losses, self._last_line, self._last_step = [], self._tenth(state), state.global_step


def _round(value: float) -> str:
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


_RESUMED_SETTINGS = {
    "shards": "the number of files (shards) of the train split",
    "processes": "the number of processes",
    "workers": "training.dataloader_num_workers",
    "batch_size": "the number of rows of a batch (training.per_device_train_batch_size)",
}


class StreamPosition(TrainerCallback, ExportableState):
    """Counts the batches of a stream that were trained on, which are fewer than a `DataLoader` has prefetched.

    All processes train on the same number of batches. Trainer saves the count in `trainer_state.json`.
    """

    def __init__(self) -> None:
        self.batches = self.shards = self.processes = self.workers = self.batch_size = 0

    def state(self) -> dict:
        """Return what a checkpoint stores."""
        return {"args": {}, "attributes": dict(vars(self))}

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Skip the batches that were trained on before the checkpoint.

        Raises:
            ValueError: If the stream would have other batches than before.
        """
        stream: RowStream = train_dataloader.dataset
        self.batches, self.shards = 0, len(stream.shards)
        self.processes, self.batch_size = stream.num_processes, stream.batch_size
        self.workers = max(train_dataloader.num_workers, 1)
        if state.global_step > 0 and not args.ignore_data_skip:
            stored = state.stateful_callbacks[type(self).__name__]["attributes"]
            for name, description in _RESUMED_SETTINGS.items():
                if stored[name] != getattr(self, name):
                    raise ValueError(
                        f"{description} must be {stored[name]} as before the checkpoint, got {getattr(self, name)}. Otherwise "
                        "some rows of the stream would be trained on twice."
                    )
            self.batches = stored["batches"]
        stream.skipped_batches = self.batches

    def on_step_end(self, args, state, control, **kwargs):
        """Count the batches of a step, and set the fraction of the run that is done, which a resumed Trainer loses."""
        self.batches += args.gradient_accumulation_steps
        state.epoch = state.global_step / state.max_steps
