import logging
import sys
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from hf_maskattn import MaskAttnForSequenceClassification
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.hub.publication_files import CARD_FILE
from hf_maskattn.inspection import plots
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training import run_card
from hf_maskattn.training.assembly import assemble
from tests.training.toy_recipe import write_recipe

draw_picture = run_card.draw_picture  # before the other tests have it do nothing


@pytest.fixture
def write(tmp_path):
    """Writes the card of a recipe, and returns it."""

    def run(task="text-classification", **data):
        recipe = load_recipe(write_recipe(tmp_path, task, data=data))
        assembly = assemble(recipe, training_arguments(recipe))
        run_card.write_card(assembly, recipe, tmp_path, {"train": {"loss": 1.0}, "test": {"loss": 0.5, "accuracy": 0.25}})
        return assembly, ModelCard.load(tmp_path / CARD_FILE)

    return run


@pytest.fixture
def model(tiny_config):
    return MaskAttnForSequenceClassification(tiny_config())


@pytest.fixture
def tokenizer():
    return train_tokenizer(["woof tail $x$", "paw"], kind="word", vocab_size=40, max_length=64)


def test_texts_of_the_validation_split_are_there_to_be_tried(write, tmp_path):
    write()
    texts = (tmp_path / "validation.jsonl").read_text()
    header = ModelCard.load(tmp_path / CARD_FILE).data
    assert len(header.widget) == 3
    assert all(f'"text": "{entry["text"]}"' in texts for entry in header.widget)
    assert [result.metric_value for result in header.eval_results] == [0.25]


def test_without_other_splits_no_text_is_shown_that_the_model_is_trained_on(write):
    assert "widget" not in write(validation_file=None, test_file=None)[1].data.to_dict()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a folder `own/pets`."""
    (tmp_path / "own" / "pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "hub_id", "name"),
    [
        ("someone/pets", "someone/pets", "someone/pets"),
        ("pets", "pets", "pets"),
        ("own/pets", None, "pets"),
        ("{here}/own", None, "own"),
        (".", None, "{name}"),
        ("{here}/words.dict", None, "words.dict"),
        ("words.DICT", None, "words.DICT"),
    ],
)
def test_what_is_not_on_the_hub_is_named_without_the_path_on_this_machine(here, given, hub_id, name):
    given, name = given.format(here=here), name.format(name=here.name)
    assert (run_card.hub_id_of(given), run_card.name_of(given)) == (hub_id, name)


@pytest.mark.parametrize(("given", "linked"), [("own/pets", None), ("someone/pets", "someone/pets")])
def test_the_card_links_data_and_base_model_only_where_they_are_on_the_hub(write, here, given, linked):
    assembly, _ = write()
    recipe = load_recipe(here / "toy.yaml")
    changed = replace(recipe, model=replace(recipe.model, pretrained=given), data=replace(recipe.data, source=given))
    run_card.write_card(assembly, changed, here, {"test": {"accuracy": 0.25}})
    card = ModelCard.load(here / CARD_FILE)
    assert (card.data.base_model, card.data.datasets) == (linked, linked)
    assert [result.dataset_type for result in card.data.eval_results] == [linked or "pets"]
    assert f"Fine-tuned from {linked or 'pets'}." in card.text
    assert f"**{linked or 'pets'}**" in card.text
    assert "own/pets" not in card.content


def test_words_that_are_tagged_make_a_text(write):
    assert write("token-classification")[1].data.widget[0]["text"].split()[0] in ("meow", "purr", "woof", "bark")


def test_texts_for_filling_have_one_mask(write):
    assembly, card = write("fill-mask")
    mask = assembly.data.tokenizer.mask_token
    assert all(entry["text"].split().count(mask) == 1 for entry in card.data.widget)


def test_the_picture_stands_in_the_card_if_it_was_drawn(write, monkeypatch):
    assert "attention.png" not in write()[1].text
    monkeypatch.setattr(run_card, "draw_picture", lambda *args: True)
    assert "![Attention over texts](attention.png)" in write()[1].text


def test_a_card_of_a_model_that_writes_texts_has_a_picture_of_alignments(write, monkeypatch, tmp_path):
    monkeypatch.setattr(run_card, "draw_picture", draw_picture)
    _, card = write("text2text-generation")
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert "![Alignment of source and generated tokens](attention.png)" in card.text
    assert card.text.count("model.generate(**batch)") == 2


def test_a_picture_of_attention(model, tokenizer, tmp_path):
    assert draw_picture(model, tokenizer, ["woof \U0001f415", "tail $x$ $", "paw " * 80], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_long_texts_are_cut_and_signs_without_a_glyph_left_out(model, tokenizer, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(run_card, "draw_attention_maps", lambda panels, path: drawn.extend(panels["attention"]))
    draw_picture(model, tokenizer, ["woof \u6f22", "paw " * 80, "tail", "woof", "woof woof"], tmp_path / "a.png")
    assert [int(row.mask.sum()) for row in drawn] == [30, 1, 1]
    assert all(row.mass_on_pads == 0 for row in drawn)


def test_nothing_to_draw(model, tokenizer, tmp_path):
    assert not draw_picture(model, tokenizer, ["\u6f22"], tmp_path / "a.png")
    assert not draw_picture(model, tokenizer, [], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_there_is_no_picture_and_the_log_says_why(model, tokenizer, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.font_manager", None)
    with caplog.at_level(logging.INFO, logger="hf_maskattn"):
        assert not draw_picture(model, tokenizer, ["woof"], tmp_path / "a.png")
    assert 'no picture of attention: pictures need matplotlib: pip install "hf-maskattn[viz] @ git+https' in caplog.text


def test_a_run_is_not_lost_for_a_picture(model, tokenizer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run_card, "draw_attention_maps", lambda panels, path: 1 / 0)
    assert not draw_picture(model, tokenizer, ["woof"], tmp_path / "a.png")
    assert "drawing it failed: ZeroDivisionError('division by zero')" in caplog.text


def test_which_texts_the_font_can_show():
    assert plots.can_be_drawn("Ungverjaland, Lettország, Ελλάδα, Россия")
    assert not plots.can_be_drawn("\u6f22")
