"""Teachers with random weights, whose tokenizer is not that of a student: a tiny BERT with cased pieces and special tokens."""

import torch
from tokenizers import processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_maskattn.data.tokenizers import train_tokenizer
from tests.toy_writer import toy_writer

TEXTS = ["meow purr paw tail woof bark a b c d SOUND"] * 2
HEADS = {"text-classification": AutoModelForSequenceClassification, "token-classification": AutoModelForTokenClassification}


def build_tokenizer(max_length: int = 64) -> PreTrainedTokenizerBase:
    """Build a tokenizer that adds special tokens and splits words into characters."""
    tokenizer = train_tokenizer(TEXTS, kind="wordpiece", vocab_size=60, max_length=max_length)
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


def build_teacher(
    labels: list[str] | None, task: str = "text-classification", seed: int = 0, **settings
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Build a teacher; its logits differ much between texts. `labels=None` is regression."""
    tokenizer = build_tokenizer()
    fields = {"num_labels": 1} if labels is None else {"id2label": dict(enumerate(labels))}
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        **{**fields, **settings},
    )
    torch.manual_seed(seed)
    model = HEADS[task].from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    return model.eval(), tokenizer


def save_teacher(folder, labels, task="text-classification", **settings) -> str:
    """Save a teacher, and return its folder."""
    for part in build_teacher(labels, task, **settings):
        part.save_pretrained(folder)
    return str(folder)


def save_pair_teacher(folder) -> str:
    """Save an encoder-decoder as a teacher, and return its folder."""
    for part in toy_writer():
        part.save_pretrained(folder)
    return str(folder)
