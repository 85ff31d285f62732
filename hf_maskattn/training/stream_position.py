"""How far a run has come in its stream: kept in each checkpoint, and taken up when the run is resumed."""

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hf_maskattn.data.row_stream import RowStream

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
        self.processes, self.batch_size = stream.processes, stream.batch_size
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
        stream.batches = self.batches

    def on_step_end(self, args, state, control, **kwargs):
        """Count the batches of a step, and how much of the run is done, which Trainer forgets when it is resumed."""
        self.batches += args.gradient_accumulation_steps
        state.epoch = state.global_step / state.max_steps
