import logging
from itertools import cycle

import pytest

from hf_maskattn import MaskAttnConfig
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training.assembly import assemble
from tests.training.toy_recipe import write_recipe


@pytest.fixture
def warnings_of(tmp_path, caplog):
    """Puts the Trainer of a text-to-text recipe together, and returns what was logged."""

    def run(*overrides):
        path = write_recipe(tmp_path, "text2text-generation", make=lambda row: {**row, "target": "A, b."})
        recipe = load_recipe(path, overrides)
        with caplog.at_level(logging.WARNING, logger="hf_maskattn"):
            assemble(recipe, training_arguments(recipe))
        return [record.getMessage() for record in caplog.records if record.name.startswith("hf_maskattn")]

    return run


def test_right_answers_that_the_tokenizer_does_not_give_back_are_told_before_training(warnings_of):
    (message,) = warnings_of()
    assert message.startswith("The tokenizer does not give the right answer 'A, b.' back, it becomes 'A , b .': no text that")


def test_right_answers_that_come_back_are_passed_over_in_silence(warnings_of):
    assert warnings_of("data.tokenizer=char") == []


@pytest.mark.parametrize(("tag_scheme", "labels"), [(None, ["E-X", "I-X", "O", "S-X"]), ("BIOES", ["I-X", "O", "B-X"])])
def test_a_run_from_before_tag_schemes_keeps_the_tags_of_its_data(tmp_path, tag_scheme, labels):
    MaskAttnConfig(tag_scheme=tag_scheme).save_pretrained(tmp_path / "checkpoint-1")
    tags = cycle([["S-X", "O"], ["I-X", "E-X"]])
    path = write_recipe(tmp_path, "token-classification", make=lambda row: {"tokens": ["a", "b"], "tags": next(tags)})
    recipe = load_recipe(path)
    assembly = assemble(recipe, training_arguments(recipe), tmp_path / "checkpoint-1")
    assert assembly.data.labels == labels
    assert assembly.trainer.model.config.tag_scheme == tag_scheme
    assert list(assembly.trainer.model.config.id2label.values()) == labels
