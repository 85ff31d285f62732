import pytest
from datasets import Dataset, Features, List, Value
from tokenizers.processors import TemplateProcessing

from hf_maskattn.data.pair_encoding import collect_references, encode_pairs, references_of
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


def test_encode_pairs_appends_eos_after_truncation(tokenizer):
    encoded = _encode(_rows(["ab", "abcabc", ""], ["c", "cba", ""]), tokenizer)
    assert encoded.column_names == ["input_ids", "attention_mask", "labels"]
    assert encoded["input_ids"][:] == [[*_ids(tokenizer, text), END] for text in ("ab", "abca", "")]
    assert encoded["attention_mask"][:] == [[1] * 3, [1] * 5, [1]]
    assert encoded["labels"][:] == [[*_ids(tokenizer, text), END] for text in ("c", "cb", "")]


def test_encode_pairs_features(tokenizer):
    encoded = _encode(_rows(["a"], ["b"]), tokenizer)
    assert encoded.features == Features(
        {"input_ids": List(Value("int32")), "attention_mask": List(Value("int8")), "labels": List(Value("int64"))}
    )


def test_encode_pairs_first_reference_is_target(tokenizer):
    encoded = _encode(_rows(["a", "b"], [["b", "c"], ["a"]]), tokenizer)
    assert encoded["labels"][:] == [[*_ids(tokenizer, text), END] for text in "ba"]


def test_encode_pairs_appends_missing_eos():
    tokenizer = _tokenizer(for_generation=False)
    tokenizer.eos_token = "[MASK]"
    encoded = _encode(_rows(["ab"], ["cbac"]), tokenizer)
    assert encoded["input_ids"][:] == [_ids(tokenizer, "ab")]
    assert encoded["labels"][:] == [[*_ids(tokenizer, "cb"), tokenizer.eos_token_id]]


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [("[EOS] $A", "a", ["[EOS]", "a", "[EOS]"]), ("[EOS] $A", "", ["[EOS]"]), ("$A [EOS] [BOS]", "a", ["a", "[EOS]", "[BOS]"])],
)
def test_encode_pairs_recognizes_eos_of_template(template, text, expected):
    tokenizer = _tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    encoded = _encode(_rows(["a"], [text]), tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded["labels"][0]) == expected


def test_encode_pairs_requires_eos():
    message = r"must have an end-of-sequence token.* train_tokenizer\(\.\.\., for_generation=True\), or set"
    with pytest.raises(ValueError, match=message):
        _encode(_rows(["a"], ["b"]), _tokenizer(for_generation=False))


@pytest.mark.parametrize(
    ("sources", "targets", "error", "message"),
    [
        (["a", None], ["b", "b"], TypeError, r"row 1 \(counted from 0\): the text must be a string, got None \(NoneType\)"),
        (["a", "a"], ["b", None], TypeError, r"row 1 \(counted from 0\): the target must be a string, got None \(NoneType\)"),
        (["a", "a"], [1, 2], TypeError, r"row 0 \(counted from 0\): the target must be a string, got 1 \(int\)"),
        (["a", "a"], [["b"], ["b", None]], TypeError, r"row 1 \(counted from 0\): the target must be a string, got None"),
        (["a", "a"], [["b"], []], ValueError, r"row 1 \(counted from 0\): the list of targets must not be empty\."),
    ],
)
def test_encode_pairs_and_references_reject_invalid_texts(tokenizer, sources, targets, error, message):
    split = _rows(sources, targets)
    with pytest.raises(error, match=message):
        _encode(split, tokenizer)
    if None not in sources:
        encoded = _encode(_rows(["a", "a"], ["b", "b"]), tokenizer)
        with pytest.raises(error, match=message):
            collect_references(split, encoded, "target")


def test_encode_pairs_counts_rows_across_batches(tokenizer):
    with pytest.raises(TypeError, match=r"row 1100 \(counted from 0\): the target"):
        _encode(_rows(["a"] * 1101, ["b"] * 1100 + [None]), tokenizer)


def test_collect_references_by_row_ids(tokenizer):
    sources = ["a", "abcab", "a", "a", "abcac"]
    split = _rows(sources, [["b", "c"], ["abab"], ["c"], ["b", "c", "truncated and unknown"], ["c"]])
    references = collect_references(split, _encode(split, tokenizer), "target")
    assert {(tokenizer.decode(source), tokenizer.decode(labels)): texts for (source, labels), texts in references.items()} == {
        ("a[EOS]", "b[EOS]"): ["b", "c", "truncated and unknown"],
        ("abca[EOS]", "ab[EOS]"): ["abab"],
        ("a[EOS]", "c[EOS]"): ["c"],
        # Truncated to the same source.
        ("abca[EOS]", "c[EOS]"): ["c"],
    }


def test_references_of_is_deprecated(tokenizer):
    split = _rows(["a"], ["b"])
    with pytest.warns(FutureWarning, match=r"references_of is deprecated\. Use collect_references\."):
        references_of(split, _encode(split, tokenizer), "target")


def test_collect_references_of_single_texts(tokenizer):
    split = _rows(["a", "b"], ["b", "a"])
    assert list(collect_references(split, _encode(split, tokenizer), "target").values()) == [["b"], ["a"]]


def test_encode_pairs_counts_token_replaced_by_eos(caplog):
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
        "1 of 3 rows of the split 'train' have texts longer than max_length=3 tokens; 1 tokens were truncated. Raise "
        "data.max_length to keep them.",
        "2 of 3 rows of the split 'train' have targets longer than max_target_length=3 tokens; 3 tokens were truncated. Raise "
        "data.max_target_length to keep them.",
    ]
