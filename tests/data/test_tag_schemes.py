import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from hf_maskattn.data.tag_schemes import (
    are_span_tags,
    convert_to_iob2,
    detect_tag_scheme,
    extract_entities,
    has_scheme_prefix,
    iob2_labels,
    list_violations,
)
from tests.tagged_sentences import entity_tags, random_entities

SCHEMES = ["IOB1", "IOB2", "BIOES", "BILOU"]


def detect(*sentences):
    tags = [sentence.split() for sentence in sentences]
    return detect_tag_scheme(sorted({tag for sentence in tags for tag in sentence}), tags)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(st.integers(0, 10**6))
def test_extract_entities_of_every_scheme(scheme, seed):
    rng = random.Random(seed)
    length = rng.randint(1, 12)
    entities = random_entities(length, rng)
    tags = entity_tags(scheme, entities, length)
    assert extract_entities(tags) == entities
    assert list_violations(tags, scheme) == []
    assert convert_to_iob2(tags) == entity_tags("IOB2", entities, length)


@given(st.lists(st.sampled_from(["O", *(f"{prefix}-{name}" for prefix in "BIES" for name in "XY")]), max_size=9))
def test_extract_entities_matches_conlleval(tags):
    assert extract_entities(tags) == get_entities(tags)
    assert extract_entities(convert_to_iob2(tags)) == get_entities(tags)


@pytest.mark.parametrize(
    ("tags", "iob2"),
    [
        ("S-X S-X", "B-X B-X"),
        ("U-X L-X O", "B-X B-X O"),
        ("B-X M-X E-X W-X", "B-X I-X I-X B-X"),
        ("B-X I-Y O I-Y", "B-X B-Y O B-Y"),
        ("O E-X E-X", "O B-X B-X"),
        ("B-a-b I-a-b", "B-a-b I-a-b"),
    ],
)
def test_convert_to_iob2_prefixes(tags, iob2):
    assert convert_to_iob2(tags.split()) == iob2.split()


@pytest.mark.parametrize(
    ("tags", "kept", "iob2"),
    [
        ("B-X I-X", [0, 1], "B-X"),
        ("B-X B-X I-X", [1, 0, 1], "B-X B-X"),
        ("B-X O I-X", [1, 0, 1], "B-X I-X"),
        ("B-X E-X S-X", [1, 0, 1], "B-X B-X"),
        ("S-X O", [0, 1], "O"),
    ],
)
def test_convert_to_iob2_with_dropped_words(tags, kept, iob2):
    assert convert_to_iob2(tags.split(), [bool(keep) for keep in kept]) == iob2.split()


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        (["B-X I-X O B-Y"], "IOB2"),
        (["I-X I-X O I-Y B-Y"], "IOB1"),
        (["I-X O"], "IOB1"),
        (["B-X O"], "IOB2"),
        (["B-X I-X O", "O I-X", "B-Y I-Y B-X"], "IOB2"),
        (["B-X E-X"], "BIOES"),
        (["S-X O"], "BIOES"),
        (["B-X M-X E-X W-X"], "BIOES"),
        (["U-X O"], "BILOU"),
        (["B-X I-X L-X"], "BILOU"),
        (["NOUN VERB"], "none"),
        (["PER O LOC"], "none"),
        (["O O"], "none"),
        (["B I O"], "none"),
    ],
)
def test_detect_tag_scheme(sentences, scheme):
    assert detect(*sentences) == scheme


def test_detect_tag_scheme_rejects_mixed_schemes():
    with pytest.raises(ValueError, match=r"prefixes of tags must belong to one scheme .*, got E, U\. Rename the tags, or"):
        detect("E-X U-X")


def test_detect_tag_scheme_warns_about_mixed_prefixes(caplog):
    assert detect("B-X I-X _ b-X O") == "none"
    assert "Without a prefix: '_', 'b-X'. If tags mark entities, correct them, or " in caplog.text
    assert "name the tag outside of entities O" in caplog.text


@pytest.mark.parametrize(
    ("scheme", "tags", "indices"),
    [
        ("IOB2", "O I-X I-X B-Y I-X", [1, 4]),
        ("IOB1", "I-X B-X B-Y O B-X", [2, 4]),
        ("BIOES", "B-X O I-X E-X S-Y B-X", [1, 2, 5]),
        ("BILOU", "B-X B-X L-Y U-X", [1, 2]),
        ("IOB2", "S-X O", [0]),
    ],
)
def test_list_violations(scheme, tags, indices):
    assert list_violations(tags.split(), scheme) == indices


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("O B-X I-X B-Y I-Y", "O B-X I-X B-Y I-Y"),
        ("B-X E-X I-X O S-X S-Y", "B-X I-X O B-Y I-Y"),
        ("I-X O", "I-X O B-X"),
        ("B-X", "B-X I-X O"),
        ("O U-X L-X NOUN", "O B-X I-X"),
    ],
)
def test_iob2_labels(names, labels):
    assert iob2_labels(names.split()) == labels.split()


def test_iob2_labels_rejects_type_o():
    with pytest.raises(ValueError, match="entity types must not be 'O', which means no entity in pipelines"):
        iob2_labels(["B-O", "O"])


def test_has_scheme_prefix():
    assert [has_scheme_prefix("M-X", scheme) for scheme in SCHEMES] == [False, False, True, True]
    assert has_scheme_prefix("O", "IOB1")
    assert not has_scheme_prefix("NOUN", "IOB2")


@pytest.mark.parametrize(
    ("names", "expected"), [(["O", "B-X", "I-X"], True), (["NOUN", "VERB"], False), (["O"], False), (["O", "X"], False)]
)
def test_are_span_tags(names, expected):
    assert are_span_tags(names) is expected
