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


def test_the_old_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    stop = StopOnInterrupt()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_of_the_main_thread_signals_are_left_alone():
    failures = []

    def listen():
        try:
            with StopOnInterrupt().listening():
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert failures == []


@pytest.mark.parametrize(("epoch", "saves"), [(0.5, True), (2.0, False)])
def test_the_last_step_of_an_epoch_leaves_saving_to_its_end(epoch, saves):
    stop, control = StopOnInterrupt(), TrainerControl()
    stop.requested = True
    stop.on_step_end(arguments(), SimpleNamespace(epoch=epoch), control)
    assert control.should_save is saves


def test_without_a_request_nothing_is_saved_and_nothing_stops():
    stop, control = StopOnInterrupt(), TrainerControl()
    state = SimpleNamespace(epoch=0.5, global_step=3)
    stop.on_step_end(arguments(), state, control)
    stop.on_epoch_end(arguments(), state, control)
    stop.on_save(arguments(), state, control)
    assert control.should_save is False


def test_a_request_that_comes_while_a_checkpoint_is_written_waits_for_the_next_step():
    stop, state = StopOnInterrupt(), SimpleNamespace(epoch=0.5, global_step=3)
    stop.on_step_end(arguments(), state, TrainerControl())
    stop.requested = True
    stop.on_save(arguments(), state, TrainerControl())
    stop.on_step_end(arguments(), state, TrainerControl())
    with pytest.raises(TrainingInterrupted, match=r"can be continued from run.checkpoint-3"):
        stop.on_save(arguments(), state, TrainerControl())


@pytest.mark.parametrize(("epoch", "stops", "waits"), [(0.5, False, False), (2.0, False, True), (0.5, True, True)])
def test_a_checkpoint_at_the_last_step_of_an_epoch_waits_for_its_end(epoch, stops, waits):
    callback, control = SaveAtEpochEnd(), TrainerControl(should_save=True, should_training_stop=stops)
    callback.on_step_end(None, SimpleNamespace(epoch=epoch), control)
    assert control.should_save is not waits
    control.should_save = False
    callback.on_epoch_end(None, None, control)
    assert control.should_save is waits
    control.should_save = False
    callback.on_epoch_end(None, None, control)
    assert control.should_save is False


def test_nothing_is_saved_that_was_not_due():
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


def test_the_batches_that_were_trained_on_are_counted_and_taken_up():
    position, state = StreamPosition(), state_at(0)
    assert begin(position, state).skipped_batches == 0
    for state.global_step in (1, 2):
        position.on_step_end(ARGS, state, None)
    stored = position.state()["attributes"]
    assert stored == {"batches": 6, "shards": 4, "processes": 2, "workers": 1, "batch_size": 8}
    again = StreamPosition()
    assert begin(again, state_at(2, **stored)).skipped_batches == 6
    assert again.state() == position.state()


def test_a_step_with_another_number_of_batches_is_counted_as_it_was():
    assert begin(StreamPosition(), state_at(4, batches=7)).skipped_batches == 7


def test_the_share_of_the_run_is_known_after_a_resume():
    position, state = StreamPosition(), state_at(5)
    begin(position, state)
    position.on_step_end(ARGS, state, None)
    assert state.epoch == 0.25


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"shards": 5}, r"the number of files \(shards\) of the train split was 5 and is 4 now"),
        ({"processes": 3}, "the number of processes was 3 and is 2 now, .*: resume with 3"),
        ({"workers": 4}, r"training\.dataloader_num_workers was 4 and is 1 now"),
        ({"batch_size": 16}, r"the rows of a batch \(training\.per_device_train_batch_size\) was 16 and is 8 now"),
    ],
)
def test_a_stream_that_would_be_dealt_in_another_way_is_not_resumed(stored, message):
    with pytest.raises(ValueError, match=message):
        begin(StreamPosition(), state_at(2, **stored))


def test_who_asks_for_it_begins_the_stream_anew():
    args = SimpleNamespace(gradient_accumulation_steps=3, ignore_data_skip=True)
    assert begin(StreamPosition(), state_at(2, processes=3), args).skipped_batches == 0


def test_no_worker_and_one_worker_are_the_same():
    assert begin(StreamPosition(), state_at(2), workers=1).skipped_batches == 6
