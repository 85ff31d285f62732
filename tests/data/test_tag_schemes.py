import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from hf_maskattn.data.tag_schemes import (
    convert_to_iob2,
    detect_tag_scheme,
    find_contradictions,
    find_entities,
    has_prefix_of,
    iob2_labels,
)
from tests.tagged_sentences import draw_entities, tags_in

SCHEMES = ["IOB1", "IOB2", "BIOES", "BILOU"]


def detect(*sentences):
    tags = [sentence.split() for sentence in sentences]
    return detect_tag_scheme(sorted({tag for sentence in tags for tag in sentence}), tags)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(st.integers(0, 10**6))
def test_entities_of_every_scheme_are_found(scheme, seed):
    rng = random.Random(seed)
    length = rng.randint(1, 12)
    entities = draw_entities(length, rng)
    tags = tags_in(scheme, entities, length)
    assert find_entities(tags) == entities
    assert find_contradictions(tags, scheme) == []
    assert convert_to_iob2(tags) == tags_in("IOB2", entities, length)


@given(st.lists(st.sampled_from(["O", *(f"{prefix}-{name}" for prefix in "BIES" for name in "XY")]), max_size=9))
def test_contradicting_tags_are_read_as_by_conlleval(tags):
    assert find_entities(tags) == get_entities(tags)
    assert find_entities(convert_to_iob2(tags)) == get_entities(tags)


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
def test_prefixes(tags, iob2):
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
def test_words_that_are_not_kept(tags, kept, iob2):
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
def test_schemes_are_detected(sentences, scheme):
    assert detect(*sentences) == scheme


def test_mixed_schemes_are_refused():
    with pytest.raises(ValueError, match=r"prefixes of tags must be those of one scheme .*, got E, U\. Rename the tags, or"):
        detect("E-X U-X")


def test_tags_with_and_without_a_prefix_are_no_entities(caplog):
    assert detect("B-X I-X _") == "none"
    assert "call the tag outside of them O" in caplog.text


@pytest.mark.parametrize(
    ("scheme", "tags", "places"),
    [
        ("IOB2", "O I-X I-X B-Y I-X", [1, 4]),
        ("IOB1", "I-X B-X B-Y O B-X", [2, 4]),
        ("BIOES", "B-X O I-X E-X S-Y B-X", [1, 2, 5]),
        ("BILOU", "B-X B-X L-Y U-X", [1, 2]),
        ("IOB2", "S-X O", [0]),
    ],
)
def test_contradictions(scheme, tags, places):
    assert find_contradictions(tags.split(), scheme) == places


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
def test_labels_of_the_model(names, labels):
    assert iob2_labels(names.split()) == labels.split()


def test_a_type_that_pipelines_ignore_is_refused():
    with pytest.raises(ValueError, match="the type of an entity must not be 'O', which pipelines take for no entity"):
        iob2_labels(["B-O", "O"])


def test_prefixes_of_a_scheme():
    assert [has_prefix_of("M-X", scheme) for scheme in SCHEMES] == [False, False, True, True]
    assert has_prefix_of("O", "IOB1")
    assert not has_prefix_of("NOUN", "IOB2")
