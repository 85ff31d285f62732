import pytest
from datasets import ClassLabel, Dataset, List

from hf_maskattn.data.labels import UnknownLabelError
from hf_maskattn.data.places import Place, Places
from hf_maskattn.data.tag_reading import TagReader, is_visible, warn_of_tags

IOB2 = {"labels": ["O", "B-X", "I-X"], "scheme": "IOB2"}


def read(words, values, names=("O", "B-X", "I-X", "E-X", "S-X"), feature=None, **settings):
    split = Dataset.from_list([{"tokens": words, "tags": values}])
    split = split if feature is None else split.cast_column("tags", feature)
    return TagReader.of(split, "tags", names, **{**IOB2, **settings}).read(Place(3), words, values)


@pytest.mark.parametrize("word", ["", " ", "\u00a0\t", "\u200b", "\ufeff\u200e"])
def test_invisible_words(word):
    assert not is_visible(word)


@pytest.mark.parametrize("word", ["a", "\u200bb", "\u0301", "."])
def test_visible_words(word):
    assert is_visible(word)


@pytest.mark.parametrize(
    ("words", "tags", "expected"),
    [
        (["", "a", " "], ["O", "B-X", "I-X"], (["a"], ["B-X"])),
        (["a", "", "b"], ["B-X", "B-X", "I-X"], (["a", "b"], ["B-X", "B-X"])),
        (["a", "\u200b", "b"], ["B-X", "O", "I-X"], (["a", "b"], ["B-X", "I-X"])),
        (["", "\t"], ["B-X", "I-X"], ([], [])),
    ],
)
def test_empty_words_are_skipped_with_their_tags(words, tags, expected):
    assert read(words, tags) == expected


def test_tags_that_stand_for_themselves_are_kept():
    names = ["DET", "NOUN", "X"]
    assert read(["a", "", "b"], ["DET", "X", "NOUN"], names=names, scheme="none", labels=names)[1] == ["DET", "NOUN"]


@pytest.mark.parametrize("feature", [None, List(ClassLabel(names=["O", "B-X", "I-X", "E-X", "S-X"]))])
def test_numbers_stand_for_the_tags_of_the_data(feature):
    assert read(["a", "b", "c"], [1, 3, 4], feature=feature)[1] == ["B-X", "I-X", "B-X"]


def test_a_prefix_that_only_later_rows_have_is_no_unknown_label():
    assert read(["a"], ["S-X"], names=["O", "B-X"])[1] == ["B-X"]
    with pytest.raises(UnknownLabelError, match=r"row 3 \(counted from 0\): the tag 'S-Y' is none of O, B-X"):
        read(["a"], ["S-Y"], names=["O", "B-X"])


@pytest.mark.parametrize("tag", ["S-X", "NOUN", "b-X"])
def test_a_tag_outside_of_the_scheme_that_was_set_is_named(tag):
    message = rf"row 3 \(counted from 0\): a tag must be O or have a prefix of data\.tag_scheme=IOB2, got '{tag}'\. Set the"
    with pytest.raises(ValueError, match=message):
        read(["a"], [tag], names=["O", "B-X", "I-X", tag], is_strict=True)


def test_a_tag_that_is_no_label_is_refused():
    with pytest.raises(UnknownLabelError, match="the tag '_' is none of"):
        read(["a"], ["_"], names=["B-X", "_"], scheme="none")


def test_a_word_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"row 3 \(counted from 0\): word 1 must be a string, got None\. Remove the row"):
        read(["a", None], ["O", "O"])


def splits(*rows, **settings):
    split = Dataset.from_list([{"tokens": words.split("|"), "tags": tags.split()} for words, tags in rows])
    return split, TagReader.of(split, "tags", ["O", "B-X", "I-X"], **{**IOB2, **settings}), Places()


def warn(**named):
    warn_of_tags(named, tokens_column="tokens", label_column="tags")


def test_empty_words_are_counted_once_for_all_splits(caplog):
    warn(train=splits(("a", "O"), ("a||b| ", "O O O O")), test=splits(("|a", "O O")))
    assert [record.message for record in caplog.records] == [
        "3 empty words in the column 'tokens' are skipped together with their tags; the first is in row 1 "
        "(counted from 0), split 'train'."
    ]


def test_contradicting_tags_are_counted_once_for_all_splits(caplog):
    warn(train=splits(("a|b", "B-X I-X")), test=splits(("a|b", "O I-X"), ("a", "I-X")))
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("2 tags in the column 'tags' contradict the scheme IOB2 and are read as conlleval reads them")
    assert "the first is I-X in row 0 (counted from 0), split 'test'. Set data.tag_scheme" in message


def test_good_rows_cause_no_warning(caplog):
    warn(train=splits(("a|b", "B-X I-X")), test=splits(("a", "O")))
    warn(train=splits(("a|b", "I-X I-X"), scheme="none", labels=["O", "B-X", "I-X"]))
    assert not caplog.records


def test_a_bad_row_is_named_with_its_split():
    with pytest.raises(UnknownLabelError, match=r"the split 'test': row 1 \(counted from 0\): the tag 'B-Y' is none of O, B-X"):
        warn(test=splits(("a", "O"), ("a", "B-Y")))
