import re
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import BertConfig, BertForTokenClassification, pipeline
from transformers.modeling_outputs import TokenClassifierOutput

from hf_maskattn.data.cldr import FIELD_TAGS
from hf_maskattn.data.table_reading import RowLocation
from hf_maskattn.data.tag_encoding import align_tags, encode_tags, locate_words
from hf_maskattn.data.tag_reading import Tagging
from hf_maskattn.data.tokenizers import KINDS, train_tokenizer

LABELS = ["O", "B-X", "I-X", "B-Y", "I-Y"]
TEXTS = ["New York, (am 12. Mai)", "Mayo mai york newer 21 12.", "ab ba abba"]


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: train_tokenizer(TEXTS, kind=kind, vocab_size=300, max_length=99) for kind in KINDS}


def _encode(rows, tokenizer, labels=LABELS, feature=None, **changes):
    split = Dataset.from_list(rows)
    split = split if feature is None else split.cast_column("tags", feature)
    tagging = Tagging(labels, labels, changes.pop("scheme", None))
    arguments = {"tokens_column": "tokens", "label_column": "tags", "max_length": 99, **changes}
    return encode_tags(split, tokenizer, tagging=tagging, **arguments)


def _labeled(encoded, tokenizer, labels=LABELS):
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    return [(token, labels[label]) for token, label in zip(tokens, encoded["labels"][0], strict=True)]


NEW_YORK = {"text": "New  York, 12", "tokens": ["New", "York", ",", "12"], "tags": ["B-X", "I-X", "O", "B-Y"]}


def test_encode_tags_char(tokenizers):
    encoded = _encode([NEW_YORK], tokenizers["char"], text_column="text")
    assert encoded.column_names == ["input_ids", "attention_mask", "labels"]
    assert _labeled(encoded, tokenizers["char"]) == [
        ("N", "B-X"),
        *((letter, "I-X") for letter in "ew▁▁York"),
        (",", "O"),
        ("▁", "O"),
        ("1", "B-Y"),
        ("2", "I-Y"),
    ]


def test_encode_tags_byte_level_tokens_include_spaces(tokenizers):
    labeled = _labeled(_encode([NEW_YORK], tokenizers["bpe"], text_column="text"), tokenizers["bpe"])
    assert "".join(token for token, _ in labeled) == "NewĠĠYork,Ġ12"
    assert labeled[0][1] == "B-X"
    tag_of = dict(labeled)
    assert tag_of["Ġ"] == "I-X"
    assert tag_of[","] == "O"
    assert [tag for token, tag in labeled if "1" in token] == ["B-Y"]


def test_encode_tags_spaces_between_entities(tokenizers):
    row = {"tokens": ["a", "b", "b"], "tags": ["B-X", "B-X", "I-X"]}
    tags = [tag for _, tag in _labeled(_encode([row], tokenizers["char"]), tokenizers["char"])]
    assert tags == ["B-X", "O", "B-X", "I-X", "I-X"]


def test_encode_tags_labels_without_inside_and_outside(tokenizers):
    row = {"tokens": ["ab", "ba"], "tags": ["NOUN", "B-X"]}
    encoded = _encode([row], tokenizers["char"], labels=["NOUN", "B-X"])
    assert encoded["labels"][:] == [[0, 0, -100, 1, 1]]


def test_encode_tags_ignores_special_tokens_and_truncates():
    tokenizer = train_tokenizer(TEXTS, kind="char", vocab_size=300, max_length=99)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[PAD] $A [MASK]", special_tokens=[("[PAD]", 0), ("[MASK]", 2)]
    )
    encoded = _encode([{"tokens": ["ab", "ba"], "tags": ["B-X", "O"]}], tokenizer, max_length=5)
    assert encoded["labels"][:] == [[-100, 1, 2, 0, -100]]


def test_locate_words_from_left_to_right():
    assert locate_words("ab a b", ["a", "b", "a"]) == [(0, 1), (1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"tokens": ["a", "b"], "tags": ["O"]},
            r"row 1 \(counted from 0\): the row must have one tag per word, got 2 words and 1 tags",
        ),
        (
            {"tokens": ["a"], "tags": ["B-Q"]},
            r"row 1 \(counted from 0\): the tag must be one of O, B-X, I-X, B-Y, I-Y, got 'B-Q'",
        ),
        ({"tokens": ["a"], "tags": [None]}, r"row 1 \(counted from 0\): the tag must be one of .*, got None"),
        ({"tokens": ["a"], "tags": None}, r"row 1 \(counted from 0\): words or tags are missing"),
        ({"tokens": ["b", "a"], "tags": ["O", "O"]}, r"row 1 .* the words in order, got 'a b' without 'a' after character 3"),
    ],
)
def test_encode_tags_rejects_invalid_rows(tokenizers, row, message):
    valid = {"text": "a", "tokens": ["a"], "tags": ["O"]}
    with pytest.raises(ValueError, match=message):
        _encode([valid, {"text": "a b", **row}], tokenizers["char"], text_column="text")


def test_encode_tags_rejects_column_without_lists(tokenizers):
    with pytest.raises(ValueError, match=r"the column 'tags' must have a list of tags per row, got .*string"):
        _encode([{"tokens": ["a"], "tags": "O"}], tokenizers["char"])


@pytest.mark.parametrize(
    ("text", "spans", "tags", "offsets", "expected"),
    [
        ("a b", [(0, 1), (2, 3)], ["B-X", "I-Y"], [(0, 1), (1, 2), (2, 3)], ["B-X", "O", "I-Y"]),
        ("a.b", [(0, 1), (1, 2), (2, 3)], ["B-X", "O", "B-Y"], [(0, 2), (2, 3)], ["B-X", "B-Y"]),
        ("-ab", [(1, 3)], ["B-X"], [(0, 2), (2, 3)], ["B-X", "I-X"]),
        ("a b", [(0, 1), (2, 3)], ["B-X", "B-Y"], [(0, 1), (1, 3)], ["B-X", "B-Y"]),
        # A space of width zero before the word, as in byte-level tokenizers.
        ("a b", [(0, 1), (2, 3)], ["B-X", "B-Y"], [(0, 1), (2, 2), (2, 3)], ["B-X", "O", "B-Y"]),
        # The first word of the entity has no token.
        ("a - b", [(0, 1), (2, 3), (4, 5)], ["B-X", "B-X", "I-X"], [(0, 1), (4, 5)], ["B-X", "B-X"]),
    ],
)
def test_align_tags_with_spaces_and_shared_tokens(text, spans, tags, offsets, expected):
    assert align_tags(text, spans, tags, offsets) == expected


def test_align_tags_without_entities():
    spans, offsets = [(0, 2), (3, 5)], [(0, 1), (1, 2), (2, 3), (3, 5)]
    assert align_tags("ab cd", spans, ["B-X", "I-X"], offsets, mark_entities=False) == ["B-X", "B-X", "O", "I-X"]


def test_encode_tags_words_with_surrounding_spaces(tokenizers):
    row = {"tokens": [" ab ", "a"], "tags": ["B-X", "O"]}
    labels = [tag for _, tag in _labeled(_encode([row], tokenizers["char"]), tokenizers["char"])]
    assert labels == ["O", "B-X", "I-X", "O", "O", "O"]


def test_encode_tags_by_word(tokenizers, caplog):
    encoded = _encode([NEW_YORK], tokenizers["char"], text_column="text", by_word=True)
    tokens = tokenizers["char"].convert_ids_to_tokens(encoded["input_ids"][0])
    labeled = [(token, label) for token, label in zip(tokens, encoded["labels"][0], strict=True) if label != -100]
    assert labeled == [("N", 1), ("Y", 2), (",", 0), ("1", 3)]
    assert caplog.text == ""
    short = _encode([NEW_YORK], tokenizers["char"], text_column="text", by_word=True, max_length=6, name="test")
    assert short["labels"][0] == [1, *[-100] * 4, 2, 0 + 2 * 5, 3 + 2 * 5]
    assert short["attention_mask"][0] == [1] * 6 + [0, 0]
    assert "2 of 4 words of the split 'test' have no token, because they are beyond max_length=6 or" in caplog.text


@st.composite
def tagged_texts(draw):
    """Draw a text with its words and punctuation marks, and a valid IOB2 tag for each."""
    text = draw(st.text("abNewYork12,.(- \u202f", min_size=1, max_size=25))
    words = re.findall(r"\w+|[^\w\s]", text)
    tags = []
    for _ in words:
        inside = [f"I-{tags[-1][2:]}"] if tags and tags[-1] != "O" else []
        tags.append(draw(st.sampled_from(["O", "B-X", "B-Y", *inside])))
    return text, words, tags


def _entities(spans, tags):
    """Return type, start and end of the entities of spans with IOB2 tags."""
    entities = []
    for (start, end), tag in zip(spans, tags, strict=True):
        if tag.startswith("B-"):
            entities.append([tag[2:], start, end])
        elif tag.startswith("I-"):
            assert entities[-1][0] == tag[2:]
            entities[-1][2] = end
    return [tuple(entity) for entity in entities]


@pytest.mark.parametrize("kind", KINDS)
@given(tagged_texts())
def test_align_tags_preserves_entities(tokenizers, kind, tagged):
    text, words, tags = tagged
    tokenizer = tokenizers[kind]
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    spans = locate_words(text, words)
    aligned = align_tags(text, spans, tags, offsets)
    assert _entities(offsets, aligned) == _entities(spans, tags)


@pytest.mark.parametrize("kind", KINDS)
@given(tagged_texts())
def test_encode_tags_matches_align_tags(tokenizers, kind, tagged):
    text, words, tags = tagged
    if not words:
        return
    tokenizer = tokenizers[kind]
    features = Features({"tags": List(Value("string"))})
    stream = encode_tags(  # a stream does not map the rows, which is faster
        SimpleNamespace(features=features),
        tokenizer,
        text_column="text",
        tokens_column="tokens",
        label_column="tags",
        tagging=Tagging(LABELS, LABELS),
        max_length=99,
    )
    encoded = stream.encode({"text": [text], "tokens": [words], "tags": [tags]}, [RowLocation(0)])
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert [tag for _, tag in _labeled(encoded, tokenizer)] == align_tags(text, locate_words(text, words), tags, offsets)


# Not "symbols": a symbol may contain a word and the punctuation mark after it.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "symbols"])
def test_encode_tags_labels_match_pipeline(kind, date_fields):
    rows = date_fields["test"].select(range(40))
    tokenizer = train_tokenizer(rows["text"], kind=kind, vocab_size=1000, max_length=64)
    encoded = encode_tags(
        rows,
        tokenizer,
        text_column="text",
        tokens_column="tokens",
        label_column="tags",
        tagging=Tagging(FIELD_TAGS, FIELD_TAGS),
        max_length=64,
    )
    config = BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label=dict(enumerate(FIELD_TAGS)),
        label2id={tag: number for number, tag in enumerate(FIELD_TAGS)},
    )
    model = BertForTokenClassification(config)
    pipe = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple", device="cpu")
    for row, labels in zip(rows, encoded["labels"], strict=True):
        logits = 10.0 * torch.eye(len(FIELD_TAGS))[labels][None]
        model.forward = lambda logits=logits, **inputs: TokenClassifierOutput(logits=logits)
        predicted = [(entity["entity_group"], entity["start"], entity["end"]) for entity in pipe(row["text"])]
        spans = locate_words(row["text"], row["tokens"])
        assert predicted == _entities(spans, [FIELD_TAGS[tag] for tag in row["tags"]])
