"""A Trainer whose data order and masks depend on the seed alone, and that leaves our model card in place."""

from copy import copy
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_maskattn.data.row_stream import RowStream


class EpochSeededSampler(LengthGroupedSampler):
    """Groups rows of similar length, in an order that depends on seed and epoch, not on what was drawn before.

    A run that is resumed within an epoch then sees exactly the rows that were left.
    """

    def __init__(self, *args, seed: int, **kwargs):
        super().__init__(*args, generator=torch.Generator(), **kwargs)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Trainer calls this."""
        self.epoch = epoch

    def __iter__(self):
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


class ReproducibleTrainer(Trainer):
    """Trainer that can be stopped and resumed at any step without a difference, and scores the same model equally.

    Of masked language modeling that is true of the rows and their order; the masks of a resumed epoch are drawn anew.

    Args:
        *args: Those of Trainer.
        **kwargs: Those of Trainer.

    Raises:
        ValueError: If there is a token among the `TrainingArguments`.
    """

    data_collator: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.args.hub_token is not None:
            raise ValueError(
                "hub_token is written to every training_args.bin: give TrainingArguments none, and run `hf auth login`, or set "
                "the variable HF_TOKEN."
            )

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            sampler = EpochSeededSampler(sampler.batch_size, lengths=sampler.lengths, seed=self._data_seed)
        return sampler

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def get_train_dataloader(self) -> DataLoader:
        """Build the dataloader of training; of a stream, each process reads its own rows."""
        stream, args = self.train_dataset, self.args
        if not isinstance(stream, RowStream):
            return super().get_train_dataloader()
        stream.seed, stream.batch_size = self._data_seed, self._train_batch_size
        stream.process, stream.processes = args.process_index, args.world_size
        loader = DataLoader(
            stream,
            batch_size=stream.batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            # Its own: a dataloader draws a number when it begins, which a resumed run would draw at another time.
            generator=torch.Generator().manual_seed(stream.seed),
        )
        # The stream is dealt to the processes already: accelerate would deal it once more, or have one process read it all.
        return prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
            non_blocking=self.accelerator.non_blocking,
        )

    def _run_epoch(self, *args, **kwargs) -> None:
        if self.state.global_step >= self.state.max_steps:
            # Trainer would make one more step where it goes on from the last checkpoint of a run with max_steps.
            self.control.should_training_stop = True
            return
        if isinstance(self.train_dataset, RowStream):
            # The stream begins after the batches of the checkpoint; there are none to be skipped.
            kwargs["steps_trained_in_current_epoch"] = 0
        super()._run_epoch(*args, **kwargs)

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """Build the dataloader of an evaluation, which masks the same tokens every time."""
        return self._with_fixed_masks(super().get_eval_dataloader, eval_dataset)

    def get_test_dataloader(self, test_dataset) -> DataLoader:
        """Build the dataloader of a final evaluation, which masks the same tokens every time."""
        return self._with_fixed_masks(super().get_test_dataloader, test_dataset)

    def _with_fixed_masks(self, build, dataset) -> DataLoader:
        training_collator = self.data_collator
        if isinstance(training_collator, DataCollatorForLanguageModeling):
            self.data_collator = copy(training_collator)
            self.data_collator.seed, self.data_collator.generator = self.args.seed, None
        try:
            return build(dataset)
        finally:
            self.data_collator = training_collator

    def create_model_card(self, *args, **kwargs) -> None:
        """Leave the model card alone: the one of this package is written before a push."""
