import os
import signal
import threading
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

from hf_maskattn.data.streaming import RowStream
from hf_maskattn.training.callbacks import (
    ProgressLines,
    SaveAtEpochEnd,
    StopOnInterrupt,
    StreamPosition,
    TrainingInterrupted,
    is_equal_with_lower_loss,
)
from tests.data.numbered_shards import NumberedShards


def arguments(folder="run"):
    return SimpleNamespace(world_size=1, output_dir=folder)


def test_previous_signal_handler_is_restored():
    before = signal.getsignal(signal.SIGINT)
    stop = StopOnInterrupt()
    with stop.handle_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_are_not_handled_outside_the_main_thread():
    failures = []

    def listen():
        try:
            with StopOnInterrupt().handle_interrupts():
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert failures == []


@pytest.mark.parametrize(("epoch", "saves"), [(0.5, True), (2.0, False)])
def test_interrupt_at_the_last_step_of_an_epoch_saves_at_its_end(epoch, saves):
    stop, control = StopOnInterrupt(), TrainerControl()
    stop.requested = True
    stop.on_step_end(arguments(), SimpleNamespace(epoch=epoch), control)
    assert control.should_save is saves


def test_interrupt_during_the_exchange_of_processes_stops_in_the_next_step(monkeypatch):
    stop, control, several = StopOnInterrupt(), TrainerControl(), SimpleNamespace(world_size=2, device="cpu", output_dir="run")

    def exchange(requested, op):
        stop.requested = True  # as a signal in this moment would; the other process has not got it

    monkeypatch.setattr("torch.distributed.all_reduce", exchange)
    stop.on_step_end(several, SimpleNamespace(epoch=0.5), control)
    assert not control.should_save
    stop.on_step_end(several, SimpleNamespace(epoch=0.75), control)
    assert control.should_save


def test_no_interrupt_no_checkpoint():
    stop, control = StopOnInterrupt(), TrainerControl()
    state = SimpleNamespace(epoch=0.5, global_step=3)
    stop.on_step_end(arguments(), state, control)
    stop.on_epoch_end(arguments(), state, control)
    stop.on_save(arguments(), state, control)
    assert control.should_save is False


def test_interrupt_during_a_save_stops_after_the_next_step():
    stop, state = StopOnInterrupt(), SimpleNamespace(epoch=0.5, global_step=3)
    stop.on_step_end(arguments(), state, TrainerControl())
    stop.requested = True
    stop.on_save(arguments(), state, TrainerControl())
    stop.on_step_end(arguments(), state, TrainerControl())
    with pytest.raises(TrainingInterrupted, match=r"can be resumed from run.checkpoint-3"):
        stop.on_save(arguments(), state, TrainerControl())


@pytest.mark.parametrize(("epoch", "stops", "waits"), [(0.5, False, False), (2.0, False, True), (0.5, True, True)])
def test_save_at_the_last_step_of_an_epoch_is_delayed(epoch, stops, waits):
    callback, control = SaveAtEpochEnd(), TrainerControl(should_save=True, should_training_stop=stops)
    callback.on_step_end(None, SimpleNamespace(epoch=epoch), control)
    assert control.should_save is not waits
    control.should_save = False
    callback.on_epoch_end(None, None, control)
    assert control.should_save is waits
    control.should_save = False
    callback.on_epoch_end(None, None, control)
    assert control.should_save is False


def test_save_at_epoch_end_only_if_due():
    callback, control = SaveAtEpochEnd(), TrainerControl()
    callback.on_step_end(None, SimpleNamespace(epoch=1.0), control)
    callback.on_epoch_end(None, None, control)
    assert control.should_save is False


ARGS = SimpleNamespace(gradient_accumulation_steps=3, ignore_data_skip=False)


def state_at(step, **stored):
    attributes = {"batches": 3 * step, "shards": 4, "processes": 2, "workers": 1, "batch_size": 8, **stored}
    callbacks = {"StreamPosition": {"args": {}, "attributes": attributes}}
    return SimpleNamespace(global_step=step, max_steps=20, epoch=0.0, stateful_callbacks=callbacks)


def begin(position, state, args=ARGS, workers=0):
    stream = RowStream(NumberedShards(), None, num_processes=2, batch_size=8)
    position.on_train_begin(args, state, None, train_dataloader=DataLoader(stream, batch_size=8, num_workers=workers))
    return stream


def test_stream_position_resumes_its_count():
    position, state = StreamPosition(), state_at(0)
    assert begin(position, state).skipped_batches == 0
    for state.global_step in (1, 2):
        position.on_step_end(ARGS, state, None)
    stored = position.state()["attributes"]
    assert stored == {"batches": 6, "shards": 4, "processes": 2, "workers": 1, "batch_size": 8}
    again = StreamPosition()
    assert begin(again, state_at(2, **stored)).skipped_batches == 6
    assert again.state() == position.state()


def test_stream_position_keeps_the_stored_count():
    assert begin(StreamPosition(), state_at(4, batches=7)).skipped_batches == 7


def test_stream_position_sets_the_fraction_of_the_run():
    position, state = StreamPosition(), state_at(5)
    begin(position, state)
    position.on_step_end(ARGS, state, None)
    assert state.epoch == 0.25


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"shards": 5}, r"the number of files \(shards\) of the train split must be 5 as before the checkpoint, got 4"),
        ({"processes": 3}, r"the number of processes must be 3 .*, got 2\."),
        ({"workers": 4}, r"training\.dataloader_num_workers must be 4 .*, got 1"),
        ({"batch_size": 16}, r"the number of rows of a batch \(training\.per_device_train_batch_size\) must be 16 .*, got 8"),
    ],
)
def test_stream_with_other_batches_is_not_resumed(stored, message):
    with pytest.raises(ValueError, match=message):
        begin(StreamPosition(), state_at(2, **stored))


def test_ignore_data_skip_restarts_the_stream():
    args = SimpleNamespace(gradient_accumulation_steps=3, ignore_data_skip=True)
    assert begin(StreamPosition(), state_at(2, processes=3), args).skipped_batches == 0


def test_zero_workers_equal_one_worker():
    assert begin(StreamPosition(), state_at(2), workers=1).skipped_batches == 6


@pytest.fixture
def lines(capsys, monkeypatch):
    """Runs the events of a training with `ProgressLines`, and returns the lines that it prints."""

    def run(*, num_steps=40, log_every=10, evaluate_every=0, is_terminal=False, scores=None, **settings):
        monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
        callback = ProgressLines("accuracy")
        args = SimpleNamespace(
            **{"disable_tqdm": True, "metric_for_best_model": "accuracy", "greater_is_better": True, **settings}
        )
        state = TrainerState(max_steps=num_steps, num_train_epochs=4, epoch=0.0, is_world_process_zero=True)
        callback.on_train_begin(args, state, TrainerControl())
        for step in range(1, num_steps + 1):
            state.global_step, state.epoch = step, 4 * step / num_steps
            callback.on_step_end(args, state, TrainerControl())
            should_evaluate = evaluate_every > 0 and step % evaluate_every == 0
            control = TrainerControl(should_evaluate=should_evaluate)
            if step % log_every == 0:
                callback.on_log(args, state, control, logs={"loss": float(step), "grad_norm": 1.0})
            if should_evaluate:
                score = 0.5 if scores is None else next(scores)
                metrics = {"eval_loss": 0.25, "eval_accuracy": score, "eval_runtime": 1.0}
                callback.on_log(args, state, control, logs=metrics)
                callback.on_evaluate(args, state, control, metrics=metrics)
                if state.best_metric is None or score > state.best_metric:
                    state.best_metric, state.best_global_step = score, step
        callback.on_log(args, state, TrainerControl(), logs={"train_loss": 1.0, "train_runtime": 1.0})
        callback.on_train_end(args, state, TrainerControl())
        return capsys.readouterr().out.splitlines()

    return run


def test_evaluation_is_one_line(lines):
    first, second, third, last = lines(evaluate_every=10, scores=iter([0.5, 0.75, 0.6, 0.75]))
    assert first.startswith("epoch 1.00  step 10/40  train loss 10.0000  validation loss 0.2500  accuracy 0.5000 (best)  00:00")
    assert "(00:00 left)" in first
    assert "step 20/40" in second
    assert "accuracy 0.7500 (best)" in second
    assert "accuracy 0.6000 (best: step 20)" in third
    assert "accuracy 0.7500 (best: step 20)" in last
    assert not last.endswith("left)")


@pytest.mark.parametrize(
    ("metric", "evaluation", "expected"),
    [
        ("accuracy", {"eval_accuracy": 0.5, "eval_loss": 0.2}, True),
        ("eval_accuracy", {"eval_accuracy": 0.5, "eval_loss": 0.2}, True),
        ("accuracy", {"eval_accuracy": 0.5, "eval_loss": 0.3}, False),
        ("accuracy", {"eval_accuracy": 0.5, "eval_loss": float("nan")}, False),
        ("accuracy", {"eval_accuracy": 0.4, "eval_loss": 0.2}, False),
        ("accuracy", {"eval_accuracy": 0.5}, False),
        (None, {"eval_accuracy": 0.5, "eval_loss": 0.2}, False),
    ],
)
def test_the_loss_decides_between_equal_evaluations(metric, evaluation, expected):
    logs = [{"step": 1, "loss": 0.1}, {"step": 1, "eval_loss": 0.3}, {"step": 2, "eval_loss": 0.1}]
    state = TrainerState(best_metric=0.5, best_global_step=1, log_history=logs)
    args = SimpleNamespace(metric_for_best_model=metric, greater_is_better=True)
    assert is_equal_with_lower_loss(args, state, evaluation) is expected
    state.best_global_step = None  # no checkpoint is saved
    assert not is_equal_with_lower_loss(args, state, evaluation)


def test_train_loss_is_the_mean_since_the_last_line(lines):
    first, second = (line for line in lines(evaluate_every=20, log_every=2) if "validation" in line)
    assert "step 20/40  train loss 19.0000  validation" in first  # steps 18 and 20, after the line of step 16
    assert "step 40/40  train loss 39.0000  validation" in second


def test_losses_without_evaluation_are_lines(lines):
    assert [line.split("  ")[2] for line in lines()] == [f"train loss {loss}.0000" for loss in (10, 20, 30, 40)]


@pytest.mark.parametrize(("is_terminal", "expected"), [(True, 40), (False, 10)])
@pytest.mark.parametrize("evaluate_every", [0, 1])
def test_files_get_one_line_each_tenth(lines, is_terminal, expected, evaluate_every):
    printed = lines(log_every=1, evaluate_every=evaluate_every, is_terminal=is_terminal)
    assert len(printed) == expected
    assert "step 40/40" in printed[-1]


def test_metric_of_the_best_checkpoint_is_shown(lines):
    (line,) = lines(evaluate_every=40, log_every=40, metric_for_best_model="eval_loss", greater_is_better=False)
    assert "validation loss 0.2500 (best)  accuracy 0.5000  00:" in line
    (line,) = lines(evaluate_every=40, log_every=40, metric_for_best_model=None, greater_is_better=None)
    assert "best" not in line


def test_loss_after_an_evaluation_of_its_step_is_no_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    callback, args = ProgressLines(), SimpleNamespace(disable_tqdm=True, metric_for_best_model=None)
    state = TrainerState(max_steps=4, global_step=4, epoch=1.0, num_train_epochs=1, is_world_process_zero=True)
    callback.on_evaluate(args, state, TrainerControl(), metrics={"eval_loss": 1.0})
    callback.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_other_processes_print_nothing(capsys):
    callback, state = ProgressLines(), TrainerState(max_steps=4, global_step=4, is_world_process_zero=False)
    callback.on_log(SimpleNamespace(), state, TrainerControl(), logs={"loss": 1.0})
    callback.on_evaluate(SimpleNamespace(), state, TrainerControl(), metrics={"eval_loss": 1.0})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("default", "is_replaced"), [(PrinterCallback, True), (ProgressCallback, True), (StreamPosition, False)]
)
def test_only_the_printer_of_trainer_is_replaced(default, is_replaced):
    own = SaveAtEpochEnd()
    trainer = Trainer.__new__(Trainer)
    trainer.callback_handler = CallbackHandler([own, default()], None, None, None, None)
    ProgressLines.replace_default(trainer, "accuracy")
    kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
    assert kinds == [SaveAtEpochEnd, ProgressLines if is_replaced else default]
