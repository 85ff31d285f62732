import pytest
from datasets import ClassLabel, Dataset, List

from hf_maskattn.data.columns import UnknownLabelError
from hf_maskattn.data.table_reading import RowLocation, RowLocations
from hf_maskattn.data.tag_reading import Tagging, is_visible, warn_about_tags

IOB2 = {"labels": ["O", "B-X", "I-X"], "scheme": "IOB2"}


def read(words, values, names=("O", "B-X", "I-X", "E-X", "S-X"), feature=None, **settings):
    split = Dataset.from_list([{"tokens": words, "tags": values}])
    split = split if feature is None else split.cast_column("tags", feature)
    return Tagging(names, **{**IOB2, **settings}).reader(split, "tags").read(RowLocation(3), words, values)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *((word, False) for word in ("", " ", "\u00a0\t", "\u200b", "\ufeff\u200e")),
        *((word, True) for word in ("a", "\u200bb", "\u0301", ".")),
    ],
)
def test_is_visible(word, expected):
    assert is_visible(word) is expected


@pytest.mark.parametrize(
    ("words", "tags", "expected"),
    [
        (["", "a", " "], ["O", "B-X", "I-X"], (["a"], ["B-X"])),
        (["a", "", "b"], ["B-X", "B-X", "I-X"], (["a", "b"], ["B-X", "B-X"])),
        (["a", "\u200b", "b"], ["B-X", "O", "I-X"], (["a", "b"], ["B-X", "I-X"])),
        (["", "\t"], ["B-X", "I-X"], ([], [])),
    ],
)
def test_read_skips_empty_words_and_their_tags(words, tags, expected):
    assert read(words, tags) == expected


def test_read_keeps_tags_without_scheme():
    names = ["DET", "NOUN", "X"]
    assert read(["a", "", "b"], ["DET", "X", "NOUN"], names=names, scheme="none", labels=names)[1] == ["DET", "NOUN"]


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        ([1, 3, 4], None),
        ([1, 3, 4], List(ClassLabel(names=["O", "B-X", "I-X", "E-X", "S-X"]))),
        ([3, 1, 0], List(ClassLabel(names=["S-X", "E-X", "I-X", "B-X", "O"]))),
    ],
)
def test_read_integers_as_tags(values, feature):
    assert read(["a", "b", "c"], values, feature=feature)[1] == ["B-X", "I-X", "B-X"]


def test_read_accepts_other_prefixes_of_known_types():
    assert read(["a"], ["S-X"], names=["O", "B-X"])[1] == ["B-X"]
    with pytest.raises(UnknownLabelError, match=r"row 3 \(counted from 0\): the tag must be one of O, B-X, got 'S-Y'"):
        read(["a"], ["S-Y"], names=["O", "B-X"])


@pytest.mark.parametrize("tag", ["S-X", "NOUN", "b-X"])
def test_read_strict_rejects_tag_of_other_scheme(tag):
    message = rf"row 3 \(counted from 0\): a tag must be O or have a prefix of data\.tag_scheme=IOB2, got '{tag}'\. Set the"
    with pytest.raises(ValueError, match=message):
        read(["a"], [tag], names=["O", "B-X", "I-X", tag], is_strict=True)


def test_read_rejects_unknown_tag():
    with pytest.raises(UnknownLabelError, match="the tag must be one of B-X, _, got '_'"):
        read(["a"], ["_"], names=["B-X", "_"], scheme="none")


def test_read_rejects_missing_word():
    with pytest.raises(ValueError, match=r"row 3 \(counted from 0\): word 1 must be a string, got None\. Remove the row"):
        read(["a", None], ["O", "O"])


def splits(*rows, **settings):
    split = Dataset.from_list([{"tokens": words.split("|"), "tags": tags.split()} for words, tags in rows])
    return split, Tagging(["O", "B-X", "I-X"], **{**IOB2, **settings}).reader(split, "tags"), RowLocations()


def warn(**named):
    warn_about_tags(named, tokens_column="tokens", label_column="tags")


def test_warn_about_tags_counts_empty_words(caplog):
    warn(train=splits(("a", "O"), ("a||b| ", "O O O O")), test=splits(("|a", "O O")))
    assert [record.message for record in caplog.records] == [
        "3 empty words in the column 'tokens' are skipped together with their tags; the first is in row 1 "
        "(counted from 0), split 'train'."
    ]


def test_warn_about_tags_counts_violations(caplog):
    warn(train=splits(("a|b", "B-X I-X")), test=splits(("a|b", "O I-X"), ("a", "I-X")))
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("2 tags in the column 'tags' violate the scheme IOB2 and are read as conlleval reads them")
    assert "the first is I-X in row 0 (counted from 0), split 'test'. Set data.tag_scheme if the tags have" in message
    warn(train=splits(("a|b", "O I-X"), is_strict=True))
    assert "Set data.tag_scheme to the scheme of the tags, or remove it" in caplog.records[-1].message


def test_warn_about_tags_without_findings(caplog):
    warn(train=splits(("a|b", "B-X I-X")), test=splits(("a", "O")))
    warn(train=splits(("a|b", "I-X I-X"), scheme="none", labels=["O", "B-X", "I-X"]))
    assert not caplog.records


def test_warn_about_tags_names_split_of_invalid_row():
    with pytest.raises(UnknownLabelError, match=r"the split 'test': row 1 .*: the tag must be one of O, B-X, I-X, got 'B-Y'"):
        warn(test=splits(("a", "O"), ("a", "B-Y")))
