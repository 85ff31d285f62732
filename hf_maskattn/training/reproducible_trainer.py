"""A Trainer whose data order and masks depend on the seed alone, and that leaves our model card in place."""

from copy import copy
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler


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
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            sampler = EpochSeededSampler(sampler.batch_size, lengths=sampler.lengths, seed=seed)
        return sampler

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
