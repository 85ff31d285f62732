"""A Trainer whose data order and masks depend on the seed alone, and that leaves our model card in place."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother, LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput

from hf_maskattn.checkpoints.checkpoints import (
    find_damage,
    is_complete,
    is_write_error,
    remove_manifest,
    rotate_checkpoints,
    summarize_error,
    write_manifest,
)
from hf_maskattn.data.collators import RowMaskingCollator, StreamMaskingCollator
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.training.samplers import with_no_row_twice


class SealingTrainer(Trainer):
    """Trainer that writes a manifest to each checkpoint when all processes have written theirs."""

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        try:
            if self.args.should_save:
                remove_manifest(folder)
            with _without_rotation(self.args):
                super()._save_checkpoint(model, trial)
            self._seal(folder)
        except Exception as error:
            if is_complete(folder) or not is_write_error(error):
                raise
            raise not_written(folder, error) from error
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            rotate_checkpoints(folder, self.args.save_total_limit, None if best is None else Path(best))

    def _push_from_checkpoint(self, checkpoint_folder) -> None:
        self._seal(Path(checkpoint_folder))
        super()._push_from_checkpoint(checkpoint_folder)

    def _seal(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()
        if self.args.should_save and not is_complete(folder):
            write_manifest(folder, resumable=not self.args.save_only_model)

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        damage = find_damage(best)
        if damage is not None:
            raise OSError(f"the best checkpoint, {best}, cannot be used any more ({damage}).")
        super()._load_best_model()


def not_written(folder: Path, error: Exception) -> OSError:
    """Tell that a folder could not be written to its end.

    Args:
        folder: The folder.
        error: What came from the library that wrote, which as a rule does not name the file.

    Returns:
        The error to raise, which names the folder, the file that was written last, and how much room is left.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    last = max(files, key=lambda path: path.stat().st_mtime_ns, default=folder)
    free = shutil.disk_usage(folder if folder.is_dir() else folder.parent).free / 2**20
    return OSError(
        f"{folder} could not be written to its end ({last.name}: {summarize_error(error)}); {free:,.0f} MiB are free on that "
        "disk."
    )


@contextmanager
def _without_rotation(args: TrainingArguments) -> Iterator[None]:
    """Keep Trainer from removing older checkpoints, which it does before the new one can be sealed."""
    limit, args.save_total_limit = args.save_total_limit, None
    try:
        yield
    finally:
        args.save_total_limit = limit


@contextmanager
def _set_for_now(args: TrainingArguments, **settings: Any) -> Iterator[None]:
    """Change arguments of Trainer, which reads them where it is about to be called, and put them back."""
    before = {name: getattr(args, name) for name in settings}
    for name, value in settings.items():
        setattr(args, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(args, name, value)


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


class FiniteLabelSmoother(LabelSmoother):
    """Label smoothing with a loss of 0 where no label is left, as the losses of the models have it, instead of NaN."""

    def __call__(self, model_output, labels, shift_labels=False, num_items_in_batch=None):
        """Average the smoothed cross entropy over the labels that are not -100."""
        count = (labels != self.ignore_index).sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        return super().__call__(model_output, labels, shift_labels, num_items_in_batch=count.clamp(min=1))


class ReproducibleTrainer(SealingTrainer):
    """Trainer that can be stopped and resumed at any step without a difference, and scores the same model equally.

    Several processes take the same rows in the same steps as one process with a batch as large as theirs together.

    Args:
        *args: Those of Trainer.
        **kwargs: Those of Trainer.

    Raises:
        ValueError: If there is a token among the `TrainingArguments`.
    """

    data_collator: Any
    label_smoother: LabelSmoother | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.label_smoother is not None:
            self.label_smoother = FiniteLabelSmoother(epsilon=self.args.label_smoothing_factor)
        if self.args.hub_token is not None:
            raise ValueError(
                "hub_token is written to every training_args.bin: give TrainingArguments none, and run `hf auth login`, or set "
                "the variable HF_TOKEN."
            )

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            rows_of_step = sampler.batch_size * self.args.world_size
            sampler = EpochSeededSampler(rows_of_step, lengths=sampler.lengths, seed=self._data_seed)
        return sampler

    def _get_eval_sampler(self, eval_dataset):
        sampler = super()._get_eval_sampler(eval_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            sampler = SeededSampler(sampler.batch_size, lengths=sampler.lengths, seed=self._data_seed)
        return sampler

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _get_dataloader(self, *args, is_training: bool = False, dataloader_key: str | None = None, **kwargs) -> DataLoader:
        # The last batch of a split is scored, also where that of an epoch is dropped.
        with _set_for_now(self.args, dataloader_drop_last=self.args.dataloader_drop_last and is_training):
            loader = super()._get_dataloader(*args, is_training=is_training, dataloader_key=dataloader_key, **kwargs)
        loader = with_no_row_twice(loader, evenly=is_training)
        if dataloader_key in getattr(self, "_eval_dataloaders", {}):
            self._eval_dataloaders[dataloader_key] = loader
        return loader

    def get_train_dataloader(self) -> DataLoader:
        """Build the dataloader of training; of a stream, each process reads its own rows."""
        stream, args = self.train_dataset, self.args
        if not isinstance(stream, RowStream):
            return self._with_own_seeds(super().get_train_dataloader())
        stream = stream.for_process(
            seed=self._data_seed,
            batch_size=self._train_batch_size,
            process_index=args.process_index,
            num_processes=args.world_size,
        )
        loader = DataLoader(
            stream,
            batch_size=stream.batch_size,
            collate_fn=self._collator_of(stream),
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

    def _collator_of(self, stream: RowStream) -> Any:
        if isinstance(self.data_collator, RowMaskingCollator):
            return StreamMaskingCollator(self.data_collator, stream)
        return self.data_collator

    def _run_epoch(self, *args, epoch: int, **kwargs) -> None:
        if self.state.global_step >= self.state.max_steps:
            # Trainer would make one more step where it goes on from the last checkpoint of a run with max_steps.
            self.control.should_training_stop = True
            return
        if isinstance(self.data_collator, RowMaskingCollator):
            self.data_collator.set_epoch(epoch)
        if isinstance(self.train_dataset, RowStream):
            # The stream begins after the batches of the checkpoint; there are none to be skipped.
            kwargs["steps_trained_in_current_epoch"] = 0
        super()._run_epoch(*args, epoch=epoch, **kwargs)

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

    def evaluation_loop(self, *args, **kwargs) -> EvalLoopOutput:
        """Score a split; of several processes each divides its loss by its own labels, as a single one does.

        For `bf16_full_eval` and `fp16_full_eval` Trainer converts the model itself, which afterwards is saved: it gets its
        own weights back.
        """
        averaged = self.args.average_tokens_across_devices and self.args.world_size == 1
        converts = self.args.bf16_full_eval or self.args.fp16_full_eval
        weights = [(weight, weight.data) for weight in self.model.parameters()] if converts else []
        try:
            with _set_for_now(self.args, average_tokens_across_devices=averaged):
                return super().evaluation_loop(*args, **kwargs)
        finally:
            for weight, data in weights:
                weight.data = data

    def prediction_step(self, model, inputs, *args, **kwargs):
        """Score a batch; the last one may have more rows in one process than in another, but is gathered as if it had not."""
        loss, *results = super().prediction_step(model, inputs, *args, **kwargs)
        if self.accelerator.gradient_state.end_of_dataloader:
            results = [x if x is None else self.accelerator.pad_across_processes(x, dim=0) for x in results]
            if "inputs" in self.args.include_for_metrics:  # which Trainer gathers next
                name = self.model.main_input_name
                inputs[name] = self.accelerator.pad_across_processes(inputs[name], dim=0)
        return loss, *results

    def _with_own_seeds(self, loader: DataLoader) -> DataLoader:
        """Keep workers that persist from drawing their seed, when they start, from where dropout draws.

        They start once in a run, but once more in a run that is resumed.
        """
        if self.args.dataloader_persistent_workers:
            getattr(loader, "base_dataloader", loader).generator = torch.Generator().manual_seed(self.args.seed)
        return loader

    def _issue_warnings_after_load(self, load_result) -> None:
        """Leave out weights that are tied to others: a checkpoint holds them once."""
        tied = set(getattr(self.model, "all_tied_weights_keys", ()))
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result)

    def create_model_card(self, *args, **kwargs) -> None:
        """Leave the model card alone: the one of this package is written before a push."""


_ONE_TEXT_A_ROW = {"num_return_sequences": 1, "return_dict_in_generate": False}


class _WritingTrainer(Seq2SeqTrainer):
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **gen_kwargs):
        if len(inputs["labels"]):
            # One text a row is scored, the best one, whatever the generation config of the model says for `generate()`.
            gen_kwargs = {**getattr(self, "_gen_kwargs", {}), **gen_kwargs, **_ONE_TEXT_A_ROW}
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)
        # A process without rows has nothing to write, which `generate()` does not take.
        loss, _, labels = Trainer.prediction_step(self, model, inputs, prediction_loss_only, ignore_keys)
        return loss, labels, labels


class ReproducibleSeq2SeqTrainer(ReproducibleTrainer, _WritingTrainer):
    """The same for models that write texts, which it scores as they are generated."""

    def evaluation_loop(self, *args, **kwargs) -> EvalLoopOutput:
        """Score a split, without the rows that fill up the last batch of a process, which Seq2SeqTrainer would count."""
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)
