"""Gradient accumulation, checkpointing, bf16 and evaluation of Seq2SeqTrainer give the result of one step, and models learn."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_maskattn import RNNSearchForConditionalGeneration
from tests.other_versions import ACTIVATION_CHECKPOINTING
from tests.quiet_training import QUIET
from tests.tolerances import GRADIENT

LETTERS = "abcdefgh"


@pytest.fixture(scope="module", params=["right", "left"])
def tokenizer(request):
    return build_tokenizer(request.param)


def build_tokenizer(side):
    vocabulary = {"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "[UNK]": 3, **{letter: 4 + i for i, letter in enumerate(LETTERS)}}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        padding_side=side,
        model_input_names=["input_ids", "attention_mask"],
    )


def rows(tokenizer, count, longest=5):
    """Build pairs of random strings and the same strings reversed."""
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(list(LETTERS), draw.integers(1, longest + 1))) for _ in range(count)]
    return [{**tokenizer(text), "labels": tokenizer(text[::-1])["input_ids"]} for text in texts]


def build_trainer(tmp_path, tokenizer, config, data, **arguments):
    torch.manual_seed(0)
    model = RNNSearchForConditionalGeneration(config)
    return Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(tmp_path),
            logging_steps=1,
            **{**QUIET, "optim": "sgd", "max_steps": 1, "learning_rate": 0.1, **arguments},
        ),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        processing_class=tokenizer,
    )


def train_one_step(tmp_path, tokenizer, config, **arguments):
    trainer = build_trainer(tmp_path, tokenizer, config, rows(tokenizer, 16), **arguments)
    trainer.train()
    parameters = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    return trainer.state.log_history[0]["loss"], parameters


@pytest.mark.parametrize("query", ["previous", pytest.param("current", marks=pytest.mark.slow)])
def test_gradient_accumulation_matches_large_batch(tmp_path, tokenizer, tiny_rnnsearch_config, query):
    config = tiny_rnnsearch_config(attention_query=query)
    full = train_one_step(tmp_path, tokenizer, config, per_device_train_batch_size=16)
    parts = train_one_step(tmp_path, tokenizer, config, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    assert abs(full[0] - parts[0]) < GRADIENT
    torch.testing.assert_close(parts[1], full[1], atol=GRADIENT, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, marks=pytest.mark.slow), {"attention_query": "current", "decoder_layers": 2, "rnn_type": "lstm"}],
    ids=str,
)
def test_activation_checkpointing_changes_no_bit(tmp_path, tiny_rnnsearch_config, changes):
    config, tokenizer = tiny_rnnsearch_config(attention_dropout_prob=0.3, **changes), build_tokenizer("right")
    plain = train_one_step(tmp_path, tokenizer, config, per_device_train_batch_size=16)
    saved = train_one_step(tmp_path, tokenizer, config, per_device_train_batch_size=16, **{ACTIVATION_CHECKPOINTING: True})
    assert saved[0] == plain[0]
    torch.testing.assert_close(saved[1], plain[1], atol=0, rtol=0)


def test_bf16_step_is_close_to_float32(tmp_path, tiny_rnnsearch_config):
    tokenizer, batch = build_tokenizer("right"), {"per_device_train_batch_size": 16}
    start, plain, rounded = (
        train_one_step(tmp_path, tokenizer, tiny_rnnsearch_config(), **batch, **changes)
        for changes in ({"learning_rate": 0.0}, {}, {"bf16": True})
    )
    assert abs(rounded[0] - plain[0]) < 0.02
    step, rounded_step = (torch.cat([(end[1][k] - start[1][k]).flatten() for k in start[1]]) for end in (plain, rounded))
    assert step.norm() > 0
    assert (rounded_step - step).norm() < 0.05 * step.norm()


def test_label_smoothing(tmp_path, tiny_rnnsearch_config):
    tokenizer = build_tokenizer("right")
    trainer = build_trainer(tmp_path, tokenizer, tiny_rnnsearch_config(), rows(tokenizer, 8), label_smoothing_factor=0.1)
    batch = trainer.data_collator(rows(tokenizer, 8))
    actual = trainer.compute_loss(trainer.model.eval(), dict(batch))
    logits = trainer.model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("generate", [True, False])
def test_evaluation_of_batches_of_unequal_length(tmp_path, tokenizer, tiny_rnnsearch_config, generate):
    config = tiny_rnnsearch_config(output_attentions=not generate, output_hidden_states=not generate)
    outputs = []
    trainer = build_trainer(
        tmp_path,
        tokenizer,
        config,
        rows(tokenizer, 10),
        predict_with_generate=generate,
        generation_max_length=7,
        generation_num_beams=2,
        per_device_eval_batch_size=3,
    )
    trainer.compute_metrics = lambda prediction: outputs.append(prediction) or {}
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    predictions = outputs[0].predictions
    assert len(predictions) == len(outputs[0].label_ids) == 10
    assert predictions.ndim == (2 if generate else 3)


@pytest.mark.slow
@pytest.mark.parametrize("query", ["previous", "current"])
def test_training_learns_to_reverse_strings(tmp_path, tiny_rnnsearch_config, query):
    tokenizer = build_tokenizer("right")
    config = tiny_rnnsearch_config(
        vocab_size=12, embedding_size=24, hidden_size=48, decoder_hidden_size=48, attention_size=24, attention_query=query
    )
    data = rows(tokenizer, 600, longest=4)
    trainer = build_trainer(
        tmp_path,
        tokenizer,
        config,
        data[:500],
        optim="adamw_torch",
        learning_rate=1e-2,
        max_steps=150,
        per_device_train_batch_size=32,
        predict_with_generate=True,
        generation_max_length=6,
    )
    trainer.train()
    actual = trainer.predict(data[500:])
    expected = np.where(actual.label_ids == -100, 0, actual.label_ids)
    width = max(actual.predictions.shape[1] - 1, expected.shape[1])
    actual, expected = (
        np.pad(ids, ((0, 0), (0, width - ids.shape[1]))) for ids in (np.maximum(actual.predictions[:, 1:], 0), expected)
    )
    assert (actual == expected).all(axis=1).mean() > 0.9
