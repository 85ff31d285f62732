"""Gradient accumulation, checkpointing, bf16, compilation and sampling give the result of a step over the full batch."""

import pytest
import torch
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding, Trainer, TrainingArguments

from hf_maskattn.data.tokenizers import train_tokenizer
from tests.heads import build_head
from tests.other_versions import ACTIVATION_CHECKPOINTING
from tests.quiet_training import QUIET
from tests.tolerances import GRADIENT

ROWS = 16


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join("abcdefghijklmnopqrstuvwxyz")], kind="word", vocab_size=40, max_length=8)


def rows(head):
    torch.manual_seed(1)
    examples = []
    for index in range(ROWS):
        ids = torch.randint(3, 29, (index % 7 + 1,)).tolist()
        label = [token % 3 for token in ids] if "Token" in head else index % 3
        if head == "multi":
            label = [float(index % 2), 1.0, 0.0]
        if head == "regression":
            label = float(index) / 4
        examples.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label})
    return examples


def train_one_step(tmp_path, tokenizer, tiny_config, head, collator=None, copies=1, **arguments):
    torch.manual_seed(0)
    kind = {"multi": ("multi_label_classification", 3), "regression": ("regression", 1)}.get(head, (None, 3))
    name = "MaskAttnForTokenClassification" if "Token" in head else "MaskAttnForSequenceClassification"
    model = build_head(name, tiny_config)
    if name == "MaskAttnForSequenceClassification":
        model = type(model)(tiny_config(problem_type=kind[0], num_labels=kind[1]))
    torch.manual_seed(0)
    if collator is None:
        collator = (DataCollatorForTokenClassification if "Token" in head else DataCollatorWithPadding)(tokenizer)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            logging_steps=1,
            optim="sgd",
            **{**QUIET, "max_steps": 1, "learning_rate": 0.1, **arguments},
        ),
        train_dataset=rows(head) * copies,
        data_collator=collator,
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer.state.log_history[0]["loss"], {k: v.detach().clone() for k, v in model.named_parameters()}


@pytest.mark.parametrize("head", ["single", "multi", "regression", "Token"])
def test_gradient_accumulation_matches_large_batch(tmp_path, tokenizer, tiny_config, head):
    full = train_one_step(tmp_path, tokenizer, tiny_config, head, per_device_train_batch_size=16)
    parts = train_one_step(tmp_path, tokenizer, tiny_config, head, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    assert abs(full[0] - parts[0]) < GRADIENT
    torch.testing.assert_close(parts[1], full[1], atol=GRADIENT, rtol=0)


def test_activation_checkpointing_changes_no_bit(tmp_path, tokenizer, tiny_config):
    plain = train_one_step(tmp_path, tokenizer, tiny_config, "Token", per_device_train_batch_size=16)
    saved = train_one_step(
        tmp_path, tokenizer, tiny_config, "Token", per_device_train_batch_size=16, **{ACTIVATION_CHECKPOINTING: True}
    )
    assert saved[0] == plain[0]
    torch.testing.assert_close(saved[1], plain[1], atol=0, rtol=0)


def test_bf16_step_is_close_to_float32(tmp_path, tokenizer, tiny_config):
    plain = train_one_step(tmp_path, tokenizer, tiny_config, "single", per_device_train_batch_size=16)
    rounded = train_one_step(tmp_path, tokenizer, tiny_config, "single", per_device_train_batch_size=16, bf16=True)
    assert abs(rounded[0] - plain[0]) < 0.02
    start = train_one_step(tmp_path, tokenizer, tiny_config, "single", per_device_train_batch_size=16, learning_rate=0.0)
    step, rounded_step = (torch.cat([(end[1][k] - start[1][k]).flatten() for k in start[1]]) for end in (plain, rounded))
    assert step.norm() > 0
    assert (rounded_step - step).norm() < 0.05 * step.norm()


def test_group_by_length_batches_similar_lengths(tmp_path, tokenizer, tiny_config):
    spreads = {}
    for strategy in ("random", "group_by_length"):
        lengths = []
        collator = DataCollatorWithPadding(tokenizer)

        def watch(batch, lengths=lengths, collator=collator):
            lengths.append([len(row["input_ids"]) for row in batch])
            return collator(batch)

        train_one_step(
            tmp_path,
            tokenizer,
            tiny_config,
            "single",
            collator=watch,
            copies=3,
            per_device_train_batch_size=4,
            max_steps=12,
            train_sampling_strategy=strategy,
        )
        spreads[strategy] = sum(max(batch) - min(batch) for batch in lengths)
    assert spreads["group_by_length"] < spreads["random"] / 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # warnings of torch's compiler
def test_torch_compile_step_matches_eager_mode(tmp_path, tokenizer, tiny_config):
    plain = train_one_step(tmp_path, tokenizer, tiny_config, "single", per_device_train_batch_size=16)
    compiled = train_one_step(tmp_path, tokenizer, tiny_config, "single", per_device_train_batch_size=16, torch_compile=True)
    assert abs(compiled[0] - plain[0]) < GRADIENT
    torch.testing.assert_close(compiled[1], plain[1], atol=GRADIENT, rtol=0)
