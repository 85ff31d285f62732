import pytest

from hf_maskattn.recipes.recipe import read_recipe
from tests.training.toy_recipe import write_recipe

STREAM = ["data.streaming=true", "training.max_steps=5"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.streaming=true"], r"training\.max_steps is missing: with data\.streaming nobody knows how many rows"),
        (["data.streaming=true", "training.max_steps=0"], r"training\.max_steps is missing"),
        (
            [*STREAM, "data.validation_fraction=0.1"],
            r"data\.validation_fraction=0\.1 cannot be cut from a stream .*: give data\.val",
        ),
        (
            [*STREAM, "training.train_sampling_strategy=group_by_length"],
            r"training\.train_sampling_strategy=group_by_length needs all rows at hand, .*: remove it; data\.shuffle_buffer=0",
        ),
        ([*STREAM, "training.save_strategy=epoch"], r"training\.save_strategy=epoch never comes: .* has no epochs; say steps"),
        ([*STREAM, "training.eval_strategy=epoch"], r"training\.eval_strategy=epoch never comes"),
        ([*STREAM, "training.logging_strategy=epoch"], r"training\.logging_strategy=epoch never comes"),
        (
            [*STREAM, "training.dataloader_in_order=false"],
            r"training\.dataloader_in_order=false leaves the order .*: remove it",
        ),
        ([*STREAM, "data.shuffle_buffer=-1"], r"data\.shuffle_buffer=-1 must be at least 0"),
        ([*STREAM, "data.sample_rows=0"], r"data\.sample_rows=0 must be at least 1"),
        (["data.shuffle_buffer=5"], r"data\.shuffle_buffer means nothing without data\.streaming: remove it, or set"),
        (["data.sample_rows=5"], r"data\.sample_rows means nothing without data\.streaming"),
    ],
)
def test_what_does_not_go_with_a_stream_is_refused_by_name(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        read_recipe(write_recipe(tmp_path), overrides)


def test_what_goes_with_a_stream_is_taken(tmp_path):
    overrides = [*STREAM, "data.shuffle_buffer=0", "training.train_sampling_strategy=random", "training.save_strategy=steps"]
    assert read_recipe(write_recipe(tmp_path), overrides).data.shuffle_buffer == 0
