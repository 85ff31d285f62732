from types import SimpleNamespace

import pytest
from transformers import TrainerControl

from hf_maskattn.checkpoints.epoch_end import SaveAtEpochEnd


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
