"""What padding does to a model that masks it in the wrong way: one classifier, four variants of masking, four of batching.

python examples/04_padding_study.py          # three seeds
python examples/04_padding_study.py --fast   # one seed, a few rows

The naive variants exist in this file only. `zeroed`: softmax over all positions, then weights at padding set to 0, so that the
rest does not sum to one. `renormalized`: the same, divided by that sum. `no mask`: the whole model reads padding as tokens.
"""

import sys
from pathlib import Path
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from hf_maskattn import MaskAttnConfig
from hf_maskattn.data.cldr import build_cldr_languages
from hf_maskattn.data.encoding import encode_texts
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.model import modeling_maskattn
from hf_maskattn.model.masking import TokenColumns

VARIANTS = ("masked", "renormalized", "zeroed", "no mask")
BATCHES = ("as trained", "other rows", "padded to 2x", "padded to 4x")
PICTURE = Path(__file__).with_name("padding_study.png")


class MaskedAfterSoftmax(nn.Module):
    """The attention of a model with its mask applied after the softmax."""

    implementation = "eager"

    def __init__(self, attention, renormalize):
        super().__init__()
        self.attention, self.renormalize = attention, renormalize

    def forward(self, query, memory, mask, is_zero_at_padding):
        _, weights = self.attention(query, memory, torch.ones_like(mask))  # [B, 1, 1, T]
        weights = weights * mask[:, None, None]
        if self.renormalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights[:, 0] @ memory, weights


def collate(tokenizer, variant, factor=1):
    """Pads a batch to `factor` times its longest row; without a mask every position counts as a token."""
    pad = DataCollatorWithPadding(tokenizer)

    def collator(rows):
        longest = max(len(row["input_ids"]) for row in rows)
        batch = pad.tokenizer.pad(rows, padding="max_length", max_length=factor * longest, return_tensors="pt")
        if variant == "no mask":
            batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
        return batch

    return collator


def train_one(variant, seed, data, tokenizer, labels, epochs):
    set_seed(seed)
    config = MaskAttnConfig(vocab_size=len(tokenizer), num_labels=len(labels), embedding_size=64, hidden_dropout_prob=0.3)
    model = AutoModelForSequenceClassification.from_config(config)
    if variant in ("zeroed", "renormalized"):
        model.maskattn.pooling.attention = MaskedAfterSoftmax(model.maskattn.pooling.attention, variant == "renormalized")
    arguments = TrainingArguments(
        "runs/padding_study",
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=3e-3,
        train_sampling_strategy="group_by_length",  # as `hf-maskattn train` does: little padding in training
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        seed=seed,
    )
    Trainer(model, arguments, collate(tokenizer, variant), data["train"]).train()
    return model.eval()


@torch.no_grad()
def score(model, variant, batch, test, tokenizer):
    """Predictions and attention mass on padding of every test row, in the order of the test split."""
    factor = {"padded to 2x": 2, "padded to 4x": 4}.get(batch, 1)
    order = torch.arange(len(test))
    if batch == "other rows":
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    predictions, masses = torch.empty(len(test), dtype=torch.long), torch.empty(len(test))
    for rows in order.split(64):
        examples = [{key: test[int(row)][key] for key in ("input_ids", "attention_mask")} for row in rows]
        inputs = collate(tokenizer, variant, factor)(examples).to(model.device)
        outputs = model(**inputs, output_attentions=True)
        lengths = torch.tensor([sum(example["attention_mask"]) for example in examples])
        is_padding = torch.arange(inputs["input_ids"].shape[1]) >= lengths[:, None]
        predictions[rows] = outputs.logits.argmax(dim=-1).cpu()
        masses[rows] = (outputs.attentions[0][:, 0, 0].cpu() * is_padding).sum(dim=1)
    return predictions, masses


def study(seeds, epochs, rows):
    """Accuracy, share of changed predictions and attention mass on padding: `[variant][batch]`, each a tensor `[seeds, 3]`."""
    data = build_cldr_languages()
    if rows is not None:
        data = type(data)({name: split.select(range(rows)) for name, split in data.items()})
    labels = data["train"].features["label"].names
    tokenizer = train_tokenizer(data["train"]["text"], kind="char", vocab_size=1000, max_length=128)
    columns = {"text_column": "text", "label_column": "label", "labels": labels, "max_length": 128}
    data = {name: encode_texts(split, tokenizer, **columns) for name, split in data.items()}
    truth = torch.tensor(data["test"]["labels"])
    results = {variant: {batch: [] for batch in BATCHES} for variant in VARIANTS}
    for seed in seeds:
        for variant in VARIANTS:
            model = train_one(variant, seed, data, tokenizer, labels, epochs)
            before, _ = score(model, variant, BATCHES[0], data["test"], tokenizer)
            for batch in BATCHES:
                predictions, masses = score(model, variant, batch, data["test"], tokenizer)
                numbers = [(predictions == truth).float().mean(), (predictions != before).float().mean(), masses.mean()]
                results[variant][batch].append(torch.stack(numbers))
    return {variant: {batch: torch.stack(found) for batch, found in batches.items()} for variant, batches in results.items()}


def show(results):
    table = Table(
        "mask", "batches", "accuracy %", "predictions changed %", "attention on padding %", title="Test split, mean of seeds"
    )
    for variant, batches in results.items():
        for batch, found in batches.items():
            low, high = (100 * found[:, 0].aminmax()[i] for i in (0, 1))
            accuracy, changed, mass = (100 * found.mean(dim=0)).tolist()
            table.add_row(variant, batch, f"{accuracy:.1f} ({low:.1f} to {high:.1f})", f"{changed:.1f}", f"{mass:.1f}")
    Console(width=110).print(table)


def draw(results, picture):
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for shift, (batch, shade) in enumerate(zip(BATCHES, ("#0b2545", "#3e6fa3", "#8db3d9", "#d2a03f"), strict=True)):
        places = [i + 0.2 * (shift - 1.5) for i in range(len(VARIANTS))]
        heights = [100 * results[variant][batch][:, 1].mean().item() for variant in VARIANTS]
        bars = axes.bar(places, heights, 0.19, label=batch, color=shade)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(range(len(VARIANTS)), VARIANTS)
    axes.set_ylabel("predictions that padding\nalone changes, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, title="batches")
    figure.savefig(picture, dpi=150)


def all_columns(mask):
    return TokenColumns(0, mask.shape[1], mask.shape[1])


def main(fast=False, picture=PICTURE):
    # The model removes columns without a token before it computes, which would hide what the naive variants do.
    with patch.object(modeling_maskattn, "find_token_columns", all_columns):
        results = study(seeds=(0,) if fast else (0, 1, 2), epochs=1 if fast else 4, rows=256 if fast else None)
    show(results)
    draw(results, picture)


if __name__ == "__main__":
    main(fast="--fast" in sys.argv[1:])
