from itertools import islice

import pytest
from datasets import Dataset, Features, List, Value
from tokenizers.processors import TemplateProcessing

from hf_maskattn.data.pair_encoding import encode_pairs, references_of
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.tokenizers import train_tokenizer

END = 3


def _tokenizer(**changes):
    return train_tokenizer(["abc"], kind="char", vocab_size=20, max_length=99, **{"for_generation": True, **changes})


@pytest.fixture(scope="module")
def tokenizer():
    return _tokenizer()


def _rows(sources, targets):
    return Dataset.from_dict({"source": sources, "target": targets, "unused": [0] * len(sources)})


def _encode(split, tokenizer, **changes):
    columns = {"source_column": "source", "target_column": "target"}
    return encode_pairs(split, tokenizer, **columns, **{"max_source_length": 5, "max_target_length": 3, **changes})


def _ids(tokenizer, text):
    return tokenizer.convert_tokens_to_ids(list(text))


def test_sources_and_targets_end_with_the_end_token_also_where_they_are_cut(tokenizer):
    encoded = _encode(_rows(["ab", "abcabc", ""], ["c", "cba", ""]), tokenizer)
    assert encoded.column_names == ["input_ids", "attention_mask", "labels"]
    assert encoded["input_ids"][:] == [[*_ids(tokenizer, text), END] for text in ("ab", "abca", "")]
    assert encoded["attention_mask"][:] == [[1] * 3, [1] * 5, [1]]
    assert encoded["labels"][:] == [[*_ids(tokenizer, text), END] for text in ("c", "cb", "")]


def test_types(tokenizer):
    encoded = _encode(_rows(["a"], ["b"]), tokenizer)
    assert encoded.features == Features(
        {"input_ids": List(Value("int32")), "attention_mask": List(Value("int8")), "labels": List(Value("int64"))}
    )


def test_rows_of_shards_are_encoded_alike(tokenizer):
    split = _rows(["ab", "abcabc", "c"], ["c", "cba", "a"])
    stream = _encode(Shards(split.to_iterable_dataset()), tokenizer)
    assert list(islice(stream, 3)) == list(_encode(split, tokenizer))


def test_of_several_right_texts_the_first_is_the_target(tokenizer):
    encoded = _encode(_rows(["a", "b"], [["b", "c"], ["a"]]), tokenizer)
    assert encoded["labels"][:] == [[*_ids(tokenizer, text), END] for text in "ba"]


def test_an_end_that_the_tokenizer_does_not_add_is_added():
    tokenizer = _tokenizer(for_generation=False)
    tokenizer.eos_token = "[MASK]"
    encoded = _encode(_rows(["ab"], ["cbac"]), tokenizer)
    assert encoded["input_ids"][:] == [_ids(tokenizer, "ab")]
    assert encoded["labels"][:] == [[*_ids(tokenizer, "cb"), tokenizer.eos_token_id]]


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("[EOS] $A", "a", ["[EOS]", "a", "[EOS]"]),
        ("[EOS] $A", "", ["[EOS]"]),
        ("$A [EOS] [BOS]", "a", ["a", "[EOS]", "[BOS]"]),
    ],
)
def test_an_end_at_the_beginning_is_none_and_one_before_a_language_is(template, text, expected):
    tokenizer = _tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    encoded = _encode(_rows(["a"], [text]), tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded["labels"][0]) == expected


def test_a_tokenizer_without_an_end_token_is_refused():
    with pytest.raises(
        ValueError, match=r"no end token.* train_tokenizer\(\.\.\., for_generation=True\), or set tokenizer\.eos"
    ):
        _encode(_rows(["a"], ["b"]), _tokenizer(for_generation=False))


@pytest.mark.parametrize(
    ("sources", "targets", "error", "message"),
    [
        (["a", None], ["b", "b"], TypeError, r"row 1 \(counted from 0\): the text is None \(NoneType\), not a string"),
        (["a", "a"], ["b", None], TypeError, r"row 1 \(counted from 0\): the target is None \(NoneType\), not a string"),
        (["a", "a"], [1, 2], TypeError, r"row 0 \(counted from 0\): the target is 1 \(int\), not a string"),
        (["a", "a"], [["b"], ["b", None]], TypeError, r"row 1 \(counted from 0\): the target is None"),
        (["a", "a"], [["b"], []], ValueError, r"row 1 \(counted from 0\): the list of targets is empty; remove the row"),
    ],
)
def test_what_is_no_text_is_named_with_its_row(tokenizer, sources, targets, error, message):
    split = _rows(sources, targets)
    with pytest.raises(error, match=message):
        _encode(split, tokenizer)
    if None not in sources:
        encoded = _encode(_rows(["a", "a"], ["b", "b"]), tokenizer)
        with pytest.raises(error, match=message):
            references_of(split, encoded, "target")


def test_rows_are_counted_across_batches(tokenizer):
    with pytest.raises(TypeError, match=r"row 2500 \(counted from 0\): the target"):
        _encode(_rows(["a"] * 2501, ["b"] * 2500 + [None]), tokenizer)


def test_references_are_found_by_the_ids_of_their_row(tokenizer):
    sources = ["a", "abcab", "a", "a", "abcac"]
    split = _rows(sources, [["b", "c"], ["abab"], ["c"], ["b", "c", "cut off and unknown"], ["c"]])
    references = references_of(split, _encode(split, tokenizer), "target")
    assert {(tokenizer.decode(source), tokenizer.decode(labels)): texts for (source, labels), texts in references.items()} == {
        ("a[EOS]", "b[EOS]"): ["b", "c", "cut off and unknown"],
        ("abca[EOS]", "ab[EOS]"): ["abab"],
        ("a[EOS]", "c[EOS]"): ["c"],
        # Cut to the same source, which tells nothing about the answer.
        ("abca[EOS]", "c[EOS]"): ["c"],
    }


def test_references_may_be_texts(tokenizer):
    split = _rows(["a", "b"], ["b", "a"])
    assert list(references_of(split, _encode(split, tokenizer), "target").values()) == [["b"], ["a"]]


def test_the_built_in_corpus(dates):
    train, test = dates["train"].select(range(2000)), dates["test"].select(range(100))
    tokenizer = train_tokenizer(
        [*train["source"], *train["target"]], kind="char", vocab_size=500, max_length=64, for_generation=True
    )
    encoded = _encode(test, tokenizer, max_source_length=64, max_target_length=16)
    assert tokenizer.batch_decode(encoded["labels"][:], skip_special_tokens=True) == test["target"][:]
    assert {len(labels) for labels in encoded["labels"]} == {len("2026-03-01") + 1}


def test_an_end_token_in_the_place_of_a_token_counts_as_a_cut(caplog):
    tokenizer = train_tokenizer(["a b c d"], kind="word", vocab_size=10, max_length=9)
    tokenizer.eos_token = "[MASK]"  # which this tokenizer does not add
    columns = {"source": ["a", "a", "a b c d"], "target": ["a b c", "a b", "a b c d"]}
    encoded = encode_pairs(
        Dataset.from_dict(columns),
        tokenizer,
        source_column="source",
        target_column="target",
        max_source_length=3,
        max_target_length=3,
        name="train",
    )
    assert [len(row) for row in encoded["labels"]] == [3, 3, 3]
    assert caplog.messages == [
        "1 of 3 rows of the split 'train' have texts longer than max_length=3 tokens; 1 tokens were cut. Raise "
        "data.max_length to keep them.",
        "2 of 3 rows of the split 'train' have targets longer than max_target_length=3 tokens; 3 tokens were cut. Raise "
        "data.max_target_length to keep them.",
    ]
