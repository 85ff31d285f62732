import pytest

from hf_maskattn.recipes.recipe import read_recipe
from tests.training.toy_recipe import write_recipe


@pytest.mark.parametrize(
    ("key", "least"),
    [
        ("data.max_length", 1),
        ("data.max_target_length", 1),
        ("training.generation_max_length", 2),
        ("training.generation_num_beams", 1),
    ],
)
def test_lengths_that_leave_nothing_are_refused(tmp_path, key, least):
    path = write_recipe(tmp_path, "text2text-generation")
    for value in (least - 1, -3):
        with pytest.raises(ValueError, match=rf"^{key}={value} must be at least {least}\.$"):
            read_recipe(path, [f"{key}={value}"])
    for value in (least, ""):
        read_recipe(path, [f"{key}={value}"])
