import random
from itertools import pairwise, product

import pytest
import torch

from hf_maskattn.data.tag_decoding import decode_labels, decode_words, group_entities, last_positions, split_words, tag_words
from hf_maskattn.data.tag_encoding import find_first_tokens, label_words

NAMES = ["O", "B-X", "I-X", "B-Y", "I-Y"]


def logits_of(*rows):
    return 9.0 * torch.nn.functional.one_hot(torch.tensor(rows), len(NAMES)).float()


def test_first_tokens_of_words():
    #       ab c.d: a token within a word, one over two words, none for the last word
    offsets = [(0, 0), (0, 1), (1, 2), (2, 5), (0, 0)]
    assert find_first_tokens("ab c.d", [(0, 2), (3, 4), (4, 5), (5, 6)], offsets) == [1, 3, 3, None]
    assert find_first_tokens("ab cd", [(0, 2), (3, 5)], []) == [None, None]
    # The second token of a word overlaps the next word, which has the prediction of that word.
    assert find_first_tokens("abc", [(0, 2), (2, 3)], [(0, 1), (1, 3)]) == [0, 0]


def test_label_words_adds_padding_for_words_without_own_token():
    row = label_words([7, 8, 9], [None, 1, 1, None], [1, 2, 3, 0], num_labels=5, padding=-7)
    assert row.tokens == [-7, 7, 8, -7, -7, 9]
    assert row.mask == [0, 1, 1, 0, 0, 1]
    assert row.labels == [1 + 10, -100, 2, 3 + 5, 0 + 10, -100]
    assert label_words([7], [0], [4], num_labels=5, padding=0) == ([7], [1], [4])
    assert label_words([], [None], [-100], num_labels=5, padding=0) == ([0], [0], [-100])


def test_label_words_marks_entities_that_begin_at_a_lost_word():
    tokens, continues = [None, 0, 1, 2, 2, 3], [False, True, False, True, False, True]
    row = label_words("abcd", tokens, [1, 2, 1, 2, 3, 4], continues=continues, num_labels=5, padding="-")
    assert row.tokens == ["-", "a", "b", "c", "-", "d"]
    assert row.labels == [1 + 10, 2 + 15, 1, 2, 3 + 5, 4 + 15]
    predicted = decode_words(logits_of([0, 1, 3, 4, 0, 2]), torch.tensor([row.labels]), names=NAMES)
    assert predicted.tolist() == [[0, 1, 3, 4, 4, 2]]


def test_decode_words_at_tokens_and_at_padding():
    labels = torch.tensor([[1 + 10, -100, 2, 3 + 5, 0 + 10, -100]])
    predicted = decode_words(logits_of([3, 4, 1, 4, 4, 0]), labels, names=NAMES)
    assert predicted[labels != -100].tolist() == [0, 1, 2, 0]  # O, B-X, the I-X that continues it, O
    assert decode_words(logits_of([3, 1]), torch.tensor([[-100, 1]]), names=()).tolist() == [[3, 1]]


def test_last_positions_matches_loop():
    mask = torch.rand(20, 9, generator=torch.Generator().manual_seed(0)) < 0.4
    expected = [[max([at for at in range(end + 1) if row[at]], default=-1) for end in range(9)] for row in mask.tolist()]
    assert last_positions(mask).tolist() == expected


def is_allowed(tags):
    return all(not tag.startswith("I-") or before in (f"B-{tag[2:]}", tag) for before, tag in pairwise(["O", *tags]))


def test_decode_labels_matches_all_allowed_sequences():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 5, len(NAMES), generator=generator)
    mask = torch.rand(60, 5, generator=generator) < 0.7
    predicted = decode_labels(logits, mask, NAMES)
    best = logits.argmax(-1)
    num_changed = 0
    for row in range(60):
        scores, count = logits[row][mask[row]], int(mask[row].sum())
        allowed = [ids for ids in product(range(len(NAMES)), repeat=count) if is_allowed([NAMES[label] for label in ids])]
        expected = max(allowed, key=lambda ids: scores[range(count), ids].sum())
        assert predicted[row][mask[row]].tolist() == list(expected)
        num_changed += list(expected) != best[row][mask[row]].tolist()
    assert 10 < num_changed < 50
    assert decode_labels(logits, mask, ()).equal(best)
    assert decode_labels(logits[:, :0], mask[:, :0], NAMES).shape == (60, 0)


def test_words_follow_the_scheme_of_the_labels():
    logits = logits_of([0, 0, 2, 4])
    labels = torch.tensor([[0, -100, 1, 2]])
    assert decode_words(logits, labels, names=NAMES)[0, [0, 2, 3]].tolist() == [0, 2, 4]
    follows = decode_words(logits, labels, names=[*NAMES, "B-NEW"], follows_scheme=True)
    assert follows[0, [0, 2, 3]].tolist() == [0, 3, 4]
    (words,) = tag_words(
        ["a b c"], [split_words("a b c")], [[(0, 1), (1, 2), (2, 3), (4, 5)]], logits, NAMES, follows_scheme=True
    )
    assert is_allowed([word["entity"] for word in words])


def test_tag_words_and_entities_use_first_tokens():
    text = "ab c.d e"
    offsets = [(0, 1), (1, 2), (2, 3), (2, 5), (5, 6)]
    logits = logits_of([1, 3, 3, 3, 4])
    (words,) = tag_words([text], [split_words(text)], [offsets], logits, NAMES)
    tags = [(word["word"], word["entity"]) for word in words]
    assert tags == [("ab", "B-X"), ("c", "B-Y"), (".", "I-Y"), ("d", "I-Y"), ("e", None)]
    assert words[0]["score"] == pytest.approx(logits[0, 0].softmax(-1)[1].item())
    entities = group_entities(text, words)
    assert [(entity["entity_group"], entity["word"]) for entity in entities] == [("X", "ab"), ("Y", "c.d")]
    assert entities[1]["score"] == pytest.approx(words[1]["score"])


@pytest.mark.parametrize("seed", range(3))
def test_words_labeled_by_their_tags_decode_to_them(seed):
    """Tokens cut a text at random characters, and a model that is right at first tokens gets the tags of all words it read."""
    rng = random.Random(seed)
    for _ in range(40):
        lengths = [rng.randint(1, 3) for _ in range(rng.randint(1, 6))]
        text = " ".join("w" * length for length in lengths)
        ends = [sum(lengths[: index + 1]) + index for index in range(len(lengths))]
        spans = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        cuts = sorted(rng.sample(range(len(text) + 1), rng.randint(0, len(text))))
        offsets = list(pairwise(cuts))
        tokens = find_first_tokens(text, spans, offsets)
        tags = [rng.randrange(len(NAMES)) for _ in spans]
        row = label_words(offsets, tokens, tags, num_labels=5, padding=(0, 0))
        assert [token for token, is_token in zip(row.tokens, row.mask, strict=True) if is_token] == offsets
        assert [label % 5 for label in row.labels if label != -100] == tags
        labels = torch.tensor([row.labels])
        predicted = decode_words(logits_of([max(label, 0) % 5 for label in row.labels]), labels, names=NAMES)
        expected, own = [], None
        for token, before, tag in zip(tokens, [None, *tokens], tags, strict=False):
            own = tag if token is not None and token != before else own
            expected.append(0 if token is None else tag if token != before else {1: 2, 3: 4}.get(own, own))
        assert predicted[labels != -100].tolist() == expected
