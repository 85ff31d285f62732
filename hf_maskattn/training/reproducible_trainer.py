"""A Trainer whose data order and masks depend on the seed alone, and that leaves our model card in place."""

from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_maskattn.data.token_masking import RowMaskingCollator
from hf_maskattn.training.checkpoint_writing import SealingTrainer


class SeededSampler(LengthGroupedSampler):
    """Groups rows of similar length, in an order that depends on the seed, not on what was drawn before."""

    def __init__(self, *args, seed: int, **kwargs):
        super().__init__(*args, generator=torch.Generator(), **kwargs)
        self.seed = seed

    def __iter__(self):
        self.generator.manual_seed(self.seed)
        return super().__iter__()


class EpochSeededSampler(SeededSampler):
    """Groups rows of similar length, in an order that depends on seed and epoch.

    A run that is resumed within an epoch then sees exactly the rows that were left.
    """

    def __init__(self, *args, seed: int, **kwargs):
        super().__init__(*args, seed=seed, **kwargs)
        self._first_seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Trainer calls this."""
        self.seed = self._first_seed + epoch


class ReproducibleTrainer(SealingTrainer):
    """Trainer that can be stopped and resumed at any step without a difference, and scores the same model equally."""

    data_collator: Any

    def _get_train_sampler(self, train_dataset=None):
        return self._seeded(super()._get_train_sampler(train_dataset), EpochSeededSampler)

    def _get_eval_sampler(self, eval_dataset):
        return self._seeded(super()._get_eval_sampler(eval_dataset), SeededSampler)

    def _seeded(self, sampler, kind: type[SeededSampler]):
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return kind(sampler.batch_size, lengths=sampler.lengths, seed=seed)

    def _run_epoch(self, *args, epoch: int, **kwargs) -> None:
        if self.state.global_step >= self.state.max_steps:
            # Trainer would make one more step where it goes on from the last checkpoint of a run with max_steps.
            self.control.should_training_stop = True
            return
        if isinstance(self.data_collator, RowMaskingCollator):
            self.data_collator.set_epoch(epoch)
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Build the dataloader of training."""
        return self._with_own_seeds(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """Build the dataloader of an evaluation, which masks the same tokens every time."""
        return self._with_own_seeds(self._with_fixed_masks(super().get_eval_dataloader, eval_dataset))

    def get_test_dataloader(self, test_dataset) -> DataLoader:
        """Build the dataloader of a final evaluation, which masks the same tokens every time."""
        return self._with_fixed_masks(super().get_test_dataloader, test_dataset)

    def _with_fixed_masks(self, build, dataset) -> DataLoader:
        training_collator = self.data_collator
        if isinstance(training_collator, RowMaskingCollator):
            self.data_collator = training_collator.with_fixed_masks()
        try:
            return build(dataset)
        finally:
            self.data_collator = training_collator

    def _with_own_seeds(self, loader: DataLoader) -> DataLoader:
        """Keep workers that persist from drawing their seed, when they start, from where dropout draws.

        They start once in a run, but once more in a run that is resumed.
        """
        if self.args.dataloader_persistent_workers:
            getattr(loader, "base_dataloader", loader).generator = torch.Generator().manual_seed(self.args.seed)
        return loader

    def create_model_card(self, *args, **kwargs) -> None:
        """Leave the model card alone: the one of this package is written before a push."""
