import pytest
import torch

from hf_maskattn.benchmark.batches import (
    build_right_padded_mask,
    draw_grouped_batches,
    draw_labeled_batch,
    draw_lengths,
    draw_random_batches,
)

CORPUS = [1 + index % 40 for index in range(5000)]
CPU = torch.device("cpu")


@pytest.mark.parametrize(("distribution", "low", "high"), [("equal", 1, 1), ("uniform", 0.4, 0.6), ("log-normal", 0.1, 0.2)])
def test_draw_lengths_follows_the_distribution(distribution, low, high):
    lengths = draw_lengths(distribution, 64, 256)
    assert lengths == draw_lengths(distribution, 64, 256)
    assert max(lengths) == 256
    assert min(lengths) >= 1
    assert low <= sum(lengths) / 64 / 256 <= high


def test_draw_lengths_rejects_unknown_distributions():
    with pytest.raises(ValueError, match=r"`distribution` must be one of .* got 'gauss'"):
        draw_lengths("gauss", 2, 3)


def test_random_and_grouped_batches_of_a_corpus():
    random, grouped = draw_random_batches(CORPUS, 64, 4), draw_grouped_batches(CORPUS, 64, 4)
    assert [len(rows) for rows in random] == [len(rows) for rows in grouped] == [64] * 4
    assert all(max(rows) - min(rows) > 30 for rows in random)
    assert all(max(rows) - min(rows) <= 2 for rows in grouped)
    assert max(grouped[0]) == 40
    assert random == draw_random_batches(CORPUS, 64, 4)


def test_right_padded_mask_with_extra_columns():
    assert build_right_padded_mask([2, 1]).tolist() == [[True, True], [True, False]]
    assert build_right_padded_mask([1], time=3).tolist() == [[True, False, False]]


def test_labeled_batch_does_not_depend_on_padding():
    short, long = draw_labeled_batch([2, 3], CPU), draw_labeled_batch([2, 3], CPU, time=5)
    assert long.input_ids.shape == (2, 5)
    assert torch.equal(long.input_ids[:, :3], short.input_ids)
    assert long.attention_mask.sum() == (long.input_ids > 0).sum() == 5
