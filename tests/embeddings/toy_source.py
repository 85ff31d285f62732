"""A tiny pretrained encoder with a WordPiece tokenizer, and files of word vectors."""

import gzip
import struct

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ["meow", "purr", "paw", "tail", "woof", "bark"]
PIECES = ["[PAD]", "[unused]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "pa", "##w", "##s", "s", "w", "##ls", "tai"]
SIZE = 8


def build_tokenizer(pieces=PIECES):
    """Build a tokenizer that adds [CLS] and [SEP]."""
    ids = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )


def write_source(folder, pieces=PIECES):
    """Save a model with random weights and its tokenizer."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(pieces) + 1,
        hidden_size=SIZE,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        initializer_range=0.5,
        max_position_embeddings=8,
    )
    BertModel(config).save_pretrained(folder)
    build_tokenizer(pieces).save_pretrained(folder)
    return folder


def write_vectors(path, words, size=SIZE, *, header=True):
    """Write random word vectors in the format of the suffix, and return them, `[N, size]`."""
    vectors = torch.randn(len(words), size, generator=torch.Generator().manual_seed(2))
    first = f"{len(words)} {size}\n".encode() if header else b""
    if ".bin" in path.suffixes:
        words = [word.replace(" ", "_") for word in words]  # a space ends a word
        rows = [word.encode() + b" " + struct.pack(f"<{size}f", *vector) for word, vector in zip(words, vectors, strict=True)]
        content = first + b"\n".join(rows)
    else:
        rows = [f"{word} " + " ".join(map(str, vector.tolist())) for word, vector in zip(words, vectors, strict=True)]
        content = first + "".join(row + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return vectors
