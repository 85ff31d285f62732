"""Texts without tokens: their tensors have one padding position, and pipelines can batch them."""

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, pipeline

from hf_maskattn.data.tokenizers import KINDS, load_tokenizer, train_tokenizer
from hf_maskattn.tokenization import MaskAttnTokenizer
from tests.heads import build_head
from tests.tolerances import MANY_STEPS

TEXTS = ["a b", "the date is 3 May", "words"]
BATCHES = [["", "a b"], ["a b", ""], ["", ""], [" ", "the date"], ["\t\n", "a", "", "words words"]]


def build_tokenizer(kind="word"):
    return train_tokenizer(TEXTS, kind=kind, vocab_size=300, max_length=64)


def assert_same(actual, expected):
    for actual_row, expected_row in zip(actual, expected, strict=True):
        for left, right in zip(actual_row, expected_row, strict=True):
            # The index of a token includes the padding before it.
            assert {**left, "score": 0, "index": 0} == {**right, "score": 0, "index": 0}
            assert left["score"] == pytest.approx(right["score"], abs=MANY_STEPS)


@pytest.mark.parametrize(("kind", "side"), [*((kind, "right") for kind in KINDS), ("word", "left"), ("bpe", "left")])
def test_pipelines_batch_empty_texts(kind, side, tiny_config):
    tokenizer = build_tokenizer(kind)
    tokenizer.padding_side = side
    for task, head in {"token-classification": "TokenClassification", "text-classification": "SequenceClassification"}.items():
        pipe = pipeline(task, model=build_head(f"MaskAttnFor{head}", tiny_config, vocab_size=300), tokenizer=tokenizer)
        settings = {"top_k": None} if task == "text-classification" else {}
        for texts in BATCHES:
            assert_same(pipe(texts, batch_size=len(texts), **settings), pipe(texts, batch_size=1, **settings))
    pipe = pipeline("feature-extraction", model=build_head("MaskAttnModel", tiny_config, vocab_size=300), tokenizer=tokenizer)
    assert len(pipe(["", "a b"], batch_size=2)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_empty_text_is_one_padding_position(kind):
    tokenizer = build_tokenizer(kind)
    encoded = tokenizer("", return_tensors="pt", return_offsets_mapping=True, return_special_tokens_mask=True)
    assert {name: tensor.tolist() for name, tensor in encoded.items()} == {
        "input_ids": [[0]],
        "attention_mask": [[0]],
        "special_tokens_mask": [[1]],
        "offset_mapping": [[[0, 0]]],
    }
    assert tokenizer(["", ""], return_tensors="pt", padding=True)["attention_mask"].tolist() == [[0], [0]]
    assert tokenizer("")["input_ids"] == []
    assert tokenizer(["", "a"], padding=True)["attention_mask"] == [[0], [1]]


def test_model_outputs_of_empty_text(tiny_config):
    model = build_head("MaskAttnForSequenceClassification", tiny_config).eval()
    empty = torch.zeros(1, 0, dtype=torch.long)
    with torch.no_grad():
        expected = model(input_ids=empty, attention_mask=empty).logits
        assert torch.equal(model(**build_tokenizer()("", return_tensors="pt")).logits, expected)


def test_auto_tokenizer_and_pipeline_load_the_class(tmp_path, tiny_config):
    build_tokenizer().save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is MaskAttnTokenizer
    build_head("MaskAttnForTokenClassification", tiny_config).save_pretrained(tmp_path)
    assert type(pipeline("token-classification", model=str(tmp_path)).tokenizer) is MaskAttnTokenizer


def test_folders_of_earlier_versions_load_the_class(tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=build_tokenizer()._tokenizer, pad_token="[PAD]").save_pretrained(tmp_path)
    assert "MaskAttnTokenizer" not in (tmp_path / "tokenizer_config.json").read_text()
    tokenizer = load_tokenizer(tmp_path, max_length=7)
    assert type(tokenizer) is MaskAttnTokenizer
    assert tokenizer.model_max_length == 7
    assert tokenizer("a b")["input_ids"] == build_tokenizer()("a b")["input_ids"]
