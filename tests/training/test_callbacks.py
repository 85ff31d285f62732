import os
import signal
import threading
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader
from transformers import TrainerControl

from hf_maskattn.data.streaming import RowStream
from hf_maskattn.training.callbacks import SaveAtEpochEnd, StopOnInterrupt, StreamPosition, TrainingInterrupted
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
