from collections import Counter

from hf_maskattn.data.augmentation import augment_texts, join_words

TEXTS = [f"w{row} the quick brown fox jumps over a lazy dog" for row in range(200)]


def test_texts_depend_on_the_seed_alone():
    assert augment_texts(TEXTS, 2, seed=0) == augment_texts(TEXTS, 2, seed=0)
    assert augment_texts(TEXTS, 2, seed=0) != augment_texts(TEXTS, 2, seed=1)


def test_texts_are_new_and_different():
    new = augment_texts([*TEXTS, "one"], 3, seed=0)
    assert len(set(new)) == len(new) <= 3 * len(TEXTS)
    assert not {tuple(text.split()) for text in TEXTS} & set(new)
    assert all(any(words) for words in new)


def test_words_are_masked_and_ngrams_sampled_as_often_as_published():
    new = augment_texts(TEXTS, 50, seed=0)
    lengths = Counter(len(words) for words in new)
    # Equal n-grams and texts without a mask are left out, so that the fractions are not exactly 0.25 and 0.1.
    assert set(lengths) == {1, 2, 3, 4, 5, 10}
    whole = [words for words in new if len(words) == 10]
    masked = sum(words.count(None) for words in whole) / (10 * len(whole))
    assert 0.1 < masked < 0.2


def test_texts_without_words_have_no_copies():
    assert augment_texts(["", "  "], 3, seed=0) == []
    assert augment_texts(TEXTS, 0, seed=0) == []


def test_masked_words_become_the_mask_token():
    assert join_words(("a", None, "b"), "<mask>") == "a <mask> b"
