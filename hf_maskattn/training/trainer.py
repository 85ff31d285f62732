"""The Trainer: resumable at any step, the same results with one process and with several, checksummed checkpoints."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer
from transformers.trainer_pt_utils import LabelSmoother, LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput, SaveStrategy

from hf_maskattn.checkpoints.checkpoints import (
    find_damage,
    incomplete_folder_error,
    is_complete,
    is_write_error,
    list_checkpoints,
    remove_checkpoints,
    remove_manifest,
    rotate_checkpoints,
    write_manifest,
)
from hf_maskattn.data.collators import RowSeededCollator, StreamCollator
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.model.losses import IGNORED, count_labels
from hf_maskattn.recipes.training_rules import replace_arguments
from hf_maskattn.training.callbacks import is_equal_with_lower_loss, scheduled_steps
from hf_maskattn.training.samplers import EpochSeededSampler, SeededSampler, shard_without_duplicates

_DEPRECATED_NAMES = ("ReproducibleTrainer", "ReproducibleSeq2SeqTrainer")


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED_NAMES:
        warnings.warn(f"{name} is deprecated. Use MaskAttnTrainer.", FutureWarning, stacklevel=2)
        return MaskAttnTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class FiniteLabelSmoother(LabelSmoother):
    """Label smoothing with a loss of 0 instead of NaN if all labels are -100, like the losses of the models."""

    def __call__(self, model_output, labels, shift_labels=False, num_items_in_batch=None):
        """Average the smoothed cross entropy over the labels that are not -100."""
        count = count_labels(labels, num_items_in_batch)
        return super().__call__(model_output, labels, shift_labels, num_items_in_batch=count)


class SplitOutputs(NamedTuple):
    """The outputs of a model for a split, in the order of its rows.

    Args:
        predictions: Predicted ids or numbers.
        labels: Labels of the rows.
        scores: Scores of the predictions, None without. With two heads each of these three is a pair.
        metrics: Values by metric name.
    """

    predictions: Any
    labels: Any
    scores: Any
    metrics: dict[str, float]


class MaskAttnTrainer(Seq2SeqTrainer):
    """Trainer whose runs are reproducible, also after they are resumed.

    - A run that is stopped and resumed at any step has the same weights and metrics as a run that is not.
    - Several processes train on the same rows in each step as one process with the same total batch size, and report the
      same metrics.
    - A checkpoint gets a manifest with checksums after all processes have written it, and older checkpoints are removed after
      that. A checkpoint without a manifest is never loaded.
    - The embeddings can be frozen, for some epochs or for good, and have a learning rate of their own.
    - With `predict_with_generate=True` generated text is evaluated, one text a row, whatever `num_return_sequences` is.

    Args:
        model: The model.
        args: The arguments.
        *more: Further positional arguments of `Trainer`.
        freeze_embeddings: Whether the input embeddings of the model are not trained, or the number of epochs until they are.
        embeddings_learning_rate: Learning rate of the input embeddings. None is the rate of all weights.
        num_labels: Number of labels of a classifier. Evaluated rows may have labels from this number on, which are scored and
            which the model does not get. None if labels are not those of a classifier.
        num_sequence_labels: The same for the labels of sequences, where `num_labels` are those of tokens.
        training_loss: Loss of training, called as `compute_loss_func` of Trainer, which computes the loss of evaluation too.
            None is the loss of the model.
        **kwargs: Further keyword arguments of `Trainer`.

    Raises:
        TypeError: If `args` is not a `Seq2SeqTrainingArguments`, which `Seq2SeqTrainer` reads for every task.
        ValueError: If `args` has a `hub_token` or label smoothing with a CRF, or DeepSpeed would not see the settings of the
            embeddings.
    """

    data_collator: Any
    label_smoother: LabelSmoother | None

    def __init__(
        self,
        model: Any,
        args: Seq2SeqTrainingArguments,
        *more: Any,
        freeze_embeddings: bool | float = False,
        embeddings_learning_rate: float | None = None,
        num_labels: int | None = None,
        num_sequence_labels: int | None = None,
        training_loss: Callable[..., torch.Tensor] | None = None,
        **kwargs: Any,
    ):
        if not isinstance(args, Seq2SeqTrainingArguments):
            raise TypeError(f"args must be Seq2SeqTrainingArguments, got {type(args).__name__}. Its fields are a superset.")
        if args.hub_token is not None:
            raise ValueError(
                "hub_token must be None, because it would be stored in every training_args.bin. Run `hf auth login`, or set "
                "the variable HF_TOKEN."
            )
        if freeze_embeddings is True and embeddings_learning_rate is not None:
            raise ValueError(f"embeddings_learning_rate={embeddings_learning_rate} has no effect with freeze_embeddings=True.")
        if freeze_embeddings is True:
            model.get_input_embeddings().requires_grad_(False)
        self.frozen_epochs = 0.0 if isinstance(freeze_embeddings, bool) else freeze_embeddings
        self.embeddings_learning_rate = embeddings_learning_rate
        self.num_labels = num_labels
        self.num_sequence_labels = num_sequence_labels
        self.training_loss = training_loss
        if training_loss is not None:
            kwargs["compute_loss_func"] = training_loss
        super().__init__(model, args, *more, **kwargs)
        if self.is_deepspeed_enabled and (self.frozen_epochs or embeddings_learning_rate is not None):
            raise ValueError(
                "freeze_embeddings and embeddings_learning_rate are not supported with DeepSpeed, which has its own gradients "
                "and optimizer. Use freeze_embeddings=True, or launch without DeepSpeed."
            )
        if self.label_smoother is not None:
            if getattr(self.model, "crf", None) is not None:
                raise ValueError(
                    f"label_smoothing_factor must be 0 with use_crf=True, whose loss is of whole sequences of labels, got "
                    f"{args.label_smoothing_factor}."
                )
            self.label_smoother = FiniteLabelSmoother(epsilon=self.args.label_smoothing_factor)

    @contextmanager
    def _replace_attributes(self, **attributes: Any) -> Iterator[None]:
        """Replace attributes of this Trainer during a call of a method that has no parameter for them."""
        saved = {name: getattr(self, name) for name in attributes}
        self.__dict__.update(attributes)
        try:
            yield
        finally:
            self.__dict__.update(saved)

    # Dataloaders

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            rows_per_step = sampler.batch_size * self.args.world_size
            sampler = EpochSeededSampler(rows_per_step, lengths=sampler.lengths, seed=self._data_seed)
        return sampler

    def _get_eval_sampler(self, eval_dataset):
        sampler = super()._get_eval_sampler(eval_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            sampler = SeededSampler(sampler.batch_size, lengths=sampler.lengths, seed=self._data_seed)
        return sampler

    def _get_dataloader(self, *args, is_training: bool = False, dataloader_key: str | None = None, **kwargs) -> DataLoader:
        changes: dict[str, Any] = {}
        if not is_training:
            # All rows are evaluated, also those of a last batch that training would drop, with the same inputs every time.
            changes["args"] = replace_arguments(self.args, dataloader_drop_last=False)
            if isinstance(self.data_collator, RowSeededCollator):
                changes["data_collator"] = self.data_collator.for_evaluation()
        with self._replace_attributes(**changes):
            loader = super()._get_dataloader(*args, is_training=is_training, dataloader_key=dataloader_key, **kwargs)
        loader = shard_without_duplicates(loader, evenly=is_training)
        if dataloader_key in getattr(self, "_eval_dataloaders", {}):
            self._eval_dataloaders[dataloader_key] = loader
        return loader

    def get_train_dataloader(self) -> DataLoader:
        """Build the training dataloader. Each process reads its own rows of a stream."""
        stream, args = self.train_dataset, self.args
        if not isinstance(stream, RowStream):
            return self._with_own_generator(super().get_train_dataloader())
        stream = replace(
            stream,
            seed=self._data_seed,
            batch_size=self._train_batch_size,
            process_index=args.process_index,
            num_processes=args.world_size,
        )
        is_seeded = isinstance(self.data_collator, RowSeededCollator)
        loader = DataLoader(
            stream,
            batch_size=stream.batch_size,
            collate_fn=StreamCollator(self.data_collator, stream) if is_seeded else self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            # A dataloader draws a number when it starts, which a resumed run would do at another step.
            generator=torch.Generator().manual_seed(stream.seed),
        )
        # The stream is already distributed to the processes. accelerate would do it again, or read it in one process only.
        return prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
            non_blocking=self.accelerator.non_blocking,
        )

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """Build the dataloader of an evaluation during training."""
        return self._with_own_generator(super().get_eval_dataloader(eval_dataset))

    def _with_own_generator(self, loader: DataLoader) -> DataLoader:
        """Give persistent workers their own generator.

        They would draw their seed from the generator of dropout when they start: once in a run, and again in a resumed run.
        """
        if self.args.dataloader_persistent_workers:
            getattr(loader, "base_dataloader", loader).generator = torch.Generator().manual_seed(self.args.seed)
        return loader

    # Training and evaluation

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Create the optimizer, with a group of their own for embeddings with their own learning rate."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self.embeddings_learning_rate is not None:
            weight = self.model.get_input_embeddings().weight
            group = next((group for group in optimizer.param_groups if any(weight is one for one in group["params"])), None)
            if group is None:
                raise ValueError(
                    f"embeddings_learning_rate={self.embeddings_learning_rate} is not supported with "
                    f"optim={self.args.optim.value}, which does not take the weights of a model. Use another optimizer."
                )
            group["params"] = [parameter for parameter in group["params"] if parameter is not weight]
            optimizer.add_param_group({**group, "params": [weight], "lr": self.embeddings_learning_rate})
        return optimizer

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """Compute the gradients of a batch, except those of frozen embeddings.

        An optimizer skips weights without a gradient, so that neither it nor weight decay moves them. All processes still
        compute the gradient: `DistributedDataParallel` expects the same weights in every step.
        """
        loss = super().training_step(*args, **kwargs)
        if (self.state.epoch or 0) < self.frozen_epochs:
            self.model.get_input_embeddings().weight.grad = None
        return loss

    def _run_epoch(self, *args, epoch: int, **kwargs) -> None:
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            # Trainer would train one more step if it resumes from the last checkpoint of a run with max_steps, or that stopped.
            self.control.should_training_stop = True
            return
        if isinstance(self.data_collator, RowSeededCollator):
            self.data_collator.set_epoch(epoch)
        if isinstance(self.train_dataset, RowStream):
            # The stream itself starts after the batches of the checkpoint.
            kwargs["steps_trained_in_current_epoch"] = 0
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    def evaluation_loop(self, *args, **kwargs) -> EvalLoopOutput:
        """Evaluate a split.

        `bf16_full_eval` and `fp16_full_eval` convert the weights of the model in place. They are restored afterwards, because
        the model is saved later.
        """
        # Seq2SeqTrainer would also count the rows that fill up the last batch of a process.
        self.gather_function = self.accelerator.gather_for_metrics
        # Each of several processes averages its loss over its own labels, as a single process does.
        average = self.args.average_tokens_across_devices and self.args.world_size == 1
        is_converted = self.args.bf16_full_eval or self.args.fp16_full_eval
        changes: dict[str, Any] = {"args": replace_arguments(self.args, average_tokens_across_devices=average)}
        if self.training_loss is not None:
            changes["compute_loss_func"] = None
        weights = [(weight, weight.data) for weight in self.model.parameters()] if is_converted else []
        try:
            with self._replace_attributes(**changes):
                return super().evaluation_loop(*args, **kwargs)
        finally:
            for weight, data in weights:
                weight.data = data

    def predict_split(
        self, dataset: Dataset, name: str, score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    ) -> SplitOutputs:
        """Evaluate a split, and return its outputs in the order of its rows, which an evaluation sorts by length.

        `score` returns scores of the predictions for logits and labels. The outputs and metrics are of the same predictions.
        """
        changes: dict[str, Any] = {}
        if score is not None:
            preprocess, compute = self.preprocess_logits_for_metrics, self.compute_metrics
            changes["preprocess_logits_for_metrics"] = lambda *args: (preprocess(*args), score(*args))
            changes["compute_metrics"] = lambda result: compute(
                EvalPrediction(predictions=result.predictions[0], label_ids=result.label_ids, inputs=result.inputs)
            )
        with self._replace_attributes(**changes):
            predictions, labels, metrics = self.predict(dataset, metric_key_prefix=name)
        predictions, scores = (predictions, None) if score is None else predictions
        sampler = self._get_eval_sampler(dataset)
        order = np.arange(len(dataset)) if sampler is None else np.fromiter(sampler, dtype=np.int64)
        places = np.argsort(order)  # of each row in the evaluation
        predictions, labels, scores = (_take_rows(values, places) for values in (predictions, labels, scores))
        return SplitOutputs(predictions, labels, scores, metrics)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **gen_kwargs):
        """Evaluate a batch. The last one may have fewer rows in one process than in another, or none."""
        loss, predictions, labels = self._predict_batch(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)
        if self.accelerator.gradient_state.end_of_dataloader:
            if predictions is not None:
                predictions = self.accelerator.pad_across_processes(predictions, dim=0)
            if labels is not None:
                labels = self.accelerator.pad_across_processes(labels, dim=0)
            if "inputs" in self.args.include_for_metrics:  # which Trainer gathers next
                name = self.model.main_input_name
                inputs[name] = self.accelerator.pad_across_processes(inputs[name], dim=0)
        return loss, predictions, labels

    def _predict_batch(self, model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs):
        if not self.args.predict_with_generate or prediction_loss_only:
            if self.num_labels is None or inputs.get("labels") is None:
                return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
            numbers = {"labels": self.num_labels}
            if self.num_sequence_labels is not None:
                numbers["sequence_labels"] = self.num_sequence_labels
            labels = {name: inputs[name].to(self.args.device) for name in numbers}
            known = {name: _hide_further(values, numbers[name]) for name, values in labels.items()}
            loss, predictions, _ = super().prediction_step(model, {**inputs, **known}, prediction_loss_only, ignore_keys)
            if prediction_loss_only:
                return loss, predictions, None
            return loss, predictions, tuple(labels.values()) if len(labels) > 1 else labels["labels"]
        if len(inputs["labels"]) == 0:  # `generate()` needs at least one row
            loss, _, labels = Trainer.prediction_step(self, model, inputs, prediction_loss_only, ignore_keys)
            return loss, labels, labels
        gen_kwargs = {**getattr(self, "_gen_kwargs", {}), **gen_kwargs}
        gen_kwargs |= {"num_return_sequences": 1, "return_dict_in_generate": False}
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)

    # Checkpoints

    def _determine_best_metric(self, metrics, trial) -> bool:
        """Let the loss decide between equal evaluations.

        Each new best checkpoint is saved, also between `save_steps`: it could not be loaded at the end otherwise.
        """
        args = self.args
        is_best = super()._determine_best_metric(metrics, trial)
        if not is_best and is_equal_with_lower_loss(args, self.state, metrics):
            is_best, self.state.best_global_step = True, self.state.global_step
        if is_best and args.load_best_model_at_end and args.save_strategy == SaveStrategy.STEPS:
            self.control.should_save |= self.state.global_step % self.state.save_steps != 0
        return is_best

    def _save_checkpoint(self, model, trial) -> None:
        """Save a checkpoint, complete it with a manifest, and only then remove older ones."""
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        try:
            if self.args.should_save:
                remove_manifest(folder)
            # Trainer would remove older checkpoints before the new one has its manifest.
            with self._replace_attributes(args=replace_arguments(self.args, save_total_limit=None)):
                super()._save_checkpoint(model, trial)
            self._complete_checkpoint(folder)
        except Exception as error:
            if is_complete(folder) or not is_write_error(error):
                raise
            raise incomplete_folder_error(folder, error) from error
        if self.args.should_save:
            self._rotate(folder)

    def _rotate(self, newest: Path) -> None:
        """Remove old checkpoints: first those of Ctrl-C, and those between `save_steps` that are no longer the best."""
        state, limit, best = self.state, self.args.save_total_limit, self.state.best_model_checkpoint
        scheduled = scheduled_steps(self.args, state)
        if limit is not None and scheduled and self.args.load_best_model_at_end:
            kept = {*scheduled, state.best_global_step}
            steps = list_checkpoints(newest.parent)
            remove_checkpoints(path for path in steps if steps[path] < state.global_step and steps[path] not in kept)
        rotate_checkpoints(newest, limit, None if best is None else Path(best))

    def _push_from_checkpoint(self, checkpoint_folder) -> None:
        self._complete_checkpoint(Path(checkpoint_folder))
        super()._push_from_checkpoint(checkpoint_folder)

    def _complete_checkpoint(self, folder: Path) -> None:
        """Write the manifest of a checkpoint after all processes have written their files."""
        self.accelerator.wait_for_everyone()
        if self.args.should_save and not is_complete(folder):
            write_manifest(folder, resumable=not self.args.save_only_model)

    def _load_best_model(self) -> None:
        """Load the best checkpoint after verifying its checksums."""
        best = Path(str(self.state.best_model_checkpoint))
        damage = find_damage(best)
        if damage is not None:
            raise OSError(f"The best checkpoint {best} cannot be loaded ({damage}).")
        super()._load_best_model()

    def _issue_warnings_after_load(self, load_result) -> None:
        """Do not warn about tied weights, which a checkpoint holds once."""
        tied = set(getattr(self.model, "all_tied_weights_keys", ()))
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result)

    def create_model_card(self, *args, **kwargs) -> None:
        """Do nothing: `README.md` is the model card of this package."""


def _take_rows(values: Any, rows: np.ndarray) -> Any:
    """Return rows of an array, or of each array of nested tuples; None stays None."""
    if isinstance(values, tuple):
        return tuple(_take_rows(value, rows) for value in values)
    return None if values is None else values[rows]


def _hide_further(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Replace labels that the model does not have by -100, or drop their columns `[B, num_labels:]` of 0 and 1."""
    if labels.is_floating_point():
        return labels[:, :num_labels]
    return labels.masked_fill(labels >= num_labels, IGNORED)
