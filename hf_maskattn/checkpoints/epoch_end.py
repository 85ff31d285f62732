"""What is due at the end of an epoch belongs to the checkpoint of its last step."""

from transformers import TrainerCallback


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
