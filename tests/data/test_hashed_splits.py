from hf_maskattn.data.hashed_splits import hashed_splits

TEXTS = [f"text {number}" for number in range(2000)]


def test_shares():
    splits = hashed_splits(TEXTS)
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(text for texts in splits.values() for text in texts) == sorted(TEXTS)
    assert 1500 < len(splits["train"]) < 1700
    assert all(150 < len(splits[name]) < 250 for name in ("validation", "test"))


def test_a_text_stays_where_it_is():
    few = hashed_splits(TEXTS[::-7])
    for name, texts in hashed_splits(TEXTS).items():
        assert few[name] == [text for text in texts if text in TEXTS[::-7]]


def test_the_splits_are_the_same_on_every_machine():
    assert hashed_splits("abcdefgh") == {"train": ["d", "f", "b", "e", "g"], "validation": ["c"], "test": ["h", "a"]}
