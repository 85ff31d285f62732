import pytest

from hf_maskattn.benchmark.lengths import draw_lengths, grouped_batches, random_batches, right_padded_mask

CORPUS = [1 + index % 40 for index in range(5000)]


@pytest.mark.parametrize(("spread", "low", "high"), [("equal", 1, 1), ("uniform", 0.4, 0.6), ("log-normal", 0.1, 0.2)])
def test_spreads_fill_a_batch_as_they_say(spread, low, high):
    lengths = draw_lengths(spread, 64, 256)
    assert lengths == draw_lengths(spread, 64, 256)
    assert max(lengths) == 256
    assert min(lengths) >= 1
    assert low <= sum(lengths) / 64 / 256 <= high


def test_an_unknown_spread_raises():
    with pytest.raises(ValueError, match="spread='gauss' is unknown; choose from"):
        draw_lengths("gauss", 2, 3)


def test_batches_of_a_corpus():
    random, grouped = random_batches(CORPUS, 64, 4), grouped_batches(CORPUS, 64, 4)
    assert [len(rows) for rows in random] == [len(rows) for rows in grouped] == [64] * 4
    assert all(max(rows) - min(rows) > 30 for rows in random)
    assert all(max(rows) - min(rows) <= 2 for rows in grouped)
    assert max(grouped[0]) == 40
    assert random == random_batches(CORPUS, 64, 4)


def test_a_mask_may_have_more_columns():
    assert right_padded_mask([2, 1]).tolist() == [[True, True], [True, False]]
    assert right_padded_mask([1], time=3).tolist() == [[True, False, False]]
