import os
import signal
import threading
from types import SimpleNamespace

import pytest
from transformers import TrainerControl

from hf_maskattn.checkpoints.interruption import StopOnInterrupt, TrainingInterrupted


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
