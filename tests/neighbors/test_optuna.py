"""Optuna: `Trainer.hyperparameter_search` over settings of the model and of the training."""

import gc

import pytest
from transformers import DataCollatorWithPadding, Seq2SeqTrainingArguments, Trainer

from hf_maskattn.training.trainer import MaskAttnTrainer
from tests.heads import build_head
from tests.quiet_training import QUIET

optuna = pytest.importorskip("optuna")

GRID = {"rnn_type": ["lstm", "gru"], "learning_rate": [1e-6, 0.05]}


@pytest.fixture
def _freeze_garbage_collector():
    """A trial collects garbage three times, in time proportional to the objects of the process."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("_freeze_garbage_collector")
@pytest.mark.parametrize("trainer_class", [Trainer, MaskAttnTrainer])
def test_search_builds_each_model_and_best_can_be_retrained(trainer_class, tiny_config, tokenizer, rows, tmp_path):
    built = []

    def build_trainer(model_init, **settings):
        arguments = Seq2SeqTrainingArguments(
            str(tmp_path),
            max_steps=8,
            per_device_train_batch_size=8,
            train_sampling_strategy="group_by_length",
            eval_strategy="steps",
            eval_steps=4,
            **QUIET,
            **settings,
        )
        collator = DataCollatorWithPadding(tokenizer)
        return trainer_class(None, arguments, collator, rows, rows, processing_class=tokenizer, model_init=model_init)

    def model_init(trial):
        rnn_type = "lstm" if trial is None else trial.suggest_categorical("rnn_type", GRID["rnn_type"])
        built.append(rnn_type)
        return build_head("MaskAttnForSequenceClassification", tiny_config, rnn_type=rnn_type)

    best = build_trainer(model_init).hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", GRID["learning_rate"])},
        n_trials=4,
        sampler=optuna.samplers.GridSampler(GRID, seed=0),
    )
    assert sorted(built[1:]) == ["gru", "gru", "lstm", "lstm"]  # Trainer itself builds the first
    assert best.hyperparameters["learning_rate"] == 0.05

    chosen = optuna.trial.FixedTrial(best.hyperparameters)
    retrained = build_trainer(lambda: model_init(chosen), learning_rate=0.05)
    retrained.train()
    assert retrained.state.log_history[-2]["eval_loss"] == best.objective
