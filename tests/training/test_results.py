import json
import logging
import sys
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import Seq2SeqTrainingArguments

from hf_maskattn import MaskAttnForJointClassification, MaskAttnForSequenceClassification, MaskAttnForTokenClassification
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.hub import publish as publish_module
from hf_maskattn.hub.publication_files import CARD_FILE
from hf_maskattn.inspection.attention_maps import AlignmentMap
from hf_maskattn.model.remote_code import CODE_VERSION
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training import results
from hf_maskattn.training import train as train_module
from hf_maskattn.training.assembly import assemble
from hf_maskattn.training.publication import HubTarget, NotPublished
from hf_maskattn.training.results import AttentionStatistics
from hf_maskattn.training.train import train
from tests.hub import faults
from tests.training.toy_recipe import load_toy, write_recipe

draw_picture = results.draw_picture  # before conftest.py replaces it


@pytest.fixture
def write(tmp_path):
    """Writes the card of a recipe and returns it."""

    def run(task="text-classification", **data):
        recipe = load_recipe(write_recipe(tmp_path, task, data=data))
        assembly = assemble(recipe, training_arguments(recipe))
        metrics = {"train": {"loss": 1.0}, "test": {"loss": 0.5, "accuracy": 0.25}}
        results.write_card(assembly, recipe, results.RunReport(tmp_path, metrics, True))
        return assembly, ModelCard.load(tmp_path / CARD_FILE)

    return run


@pytest.fixture
def model(tiny_config):
    return MaskAttnForSequenceClassification(tiny_config())


@pytest.fixture
def tokenizer():
    return train_tokenizer(["woof tail $x$", "paw"], kind="word", vocab_size=40, max_length=64)


def test_card_has_widget_texts_of_the_validation_split(write, tmp_path):
    write()
    texts = (tmp_path / "validation.jsonl").read_text()
    header = ModelCard.load(tmp_path / CARD_FILE).data
    assert len(header.widget) == 3
    assert all(f'"text": "{entry["text"]}"' in texts for entry in header.widget)
    assert [result.metric_value for result in header.eval_results] == [0.25]


def test_card_has_no_widget_texts_of_the_train_split(write):
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
def test_public_name_of_a_local_source_has_no_path(here, given, hub_id, name):
    given, name = given.format(here=here), name.format(name=here.name)
    assert (results.hub_id_of(given), results.public_name(given)) == (hub_id, name)


@pytest.mark.parametrize(("given", "linked"), [("own/pets", None), ("someone/pets", "someone/pets")])
def test_card_links_only_sources_on_the_hub(write, here, given, linked):
    assembly, _ = write()
    recipe = load_recipe(here / "toy.yaml")
    changed = replace(recipe, model=replace(recipe.model, pretrained=given), data=replace(recipe.data, source=given))
    results.write_card(assembly, changed, results.RunReport(here, {"test": {"accuracy": 0.25}}, True))
    card = ModelCard.load(here / CARD_FILE)
    assert (card.data.base_model, card.data.datasets) == (linked, linked)
    assert [result.dataset_type for result in card.data.eval_results] == [linked or "pets"]
    assert f"Fine-tuned from {linked or 'pets'}." in card.text
    assert f"**{linked or 'pets'}**" in card.text
    assert "own/pets" not in card.content


def test_card_joins_tagged_words(write):
    assert write("token-classification")[1].data.widget[0]["text"].split()[0] in ("meow", "purr", "woof", "bark")


def test_card_of_fill_mask_has_one_mask_a_text(write):
    assembly, card = write("fill-mask")
    mask = assembly.data.tokenizer.mask_token
    assert all(entry["text"].split().count(mask) == 1 for entry in card.data.widget)


def test_card_shows_the_picture_if_it_was_drawn(write, monkeypatch):
    assert "attention.png" not in write()[1].text
    monkeypatch.setattr(results, "draw_picture", lambda *args: True)
    assert "![Contributions of the tokens of texts to their predicted classes](attention.png)" in write()[1].text


@pytest.mark.parametrize(("entropy", "has_picture"), [(0.99, False), (0.5, True)])
def test_card_states_attention_and_draws_no_mean(write, monkeypatch, tmp_path, entropy, has_picture):
    assembly, _ = write()
    monkeypatch.setattr(results, "draw_picture", lambda *args: True)
    attention = AttentionStatistics(entropy, 0.25, 12)
    report = results.RunReport(tmp_path, {}, True, attention=attention)
    results.write_card(assembly, load_recipe(tmp_path / "toy.yaml"), report)
    text = ModelCard.load(tmp_path / CARD_FILE).text
    assert f"On 12 rows of the validation split: {attention.describe()}" in text
    assert ("attention.png" in text) == has_picture


@pytest.mark.parametrize("task", ["text-classification", "fill-mask", "text2text-generation"])
def test_attention_is_measured_on_first_validation_rows(write, monkeypatch, task):
    monkeypatch.setattr(results, "MAX_ATTENTION_ROWS", 10)
    monkeypatch.setattr(results, "_ATTENTION_BATCH_SIZE", 4)
    assembly, _ = write(task)
    measured = results.measure_attention(assembly)
    assert measured.rows == 10
    assert 0.5 < measured.entropy <= 1
    assert 0.5 < measured.tanh_derivative <= 1


def test_attention_is_not_measured_without_validation_split(write):
    assert results.measure_attention(write(validation_file=None, test_file=None)[0]) is None


def test_card_of_text_to_text_has_an_alignment_plot(write, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "draw_picture", draw_picture)
    _, card = write("text2text-generation")
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert "![Alignment of source and generated tokens](attention.png)" in card.text
    assert card.text.count("model.generate(**batch)") == 2


def test_picture_is_a_png(model, tokenizer, tmp_path):
    assert draw_picture(model, tokenizer, ["woof \U0001f415", "tail $x$ $", "paw " * 80], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_picture_truncates_texts_and_skips_missing_glyphs(model, tokenizer, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(results, "find_missing_characters", lambda text: {*text} & {"\u6f22"})
    monkeypatch.setattr(results, "draw_explanations", lambda explanations, path: drawn.extend(explanations))
    draw_picture(model, tokenizer, ["woof \u6f22", "paw " * 80, "tail", "woof", "woof woof"], tmp_path / "a.png")
    assert [len(explanation.tokens) for explanation in drawn] == [30, 1, 1]
    assert {explanation.method for explanation in drawn} == {"contributions"}


def test_picture_of_a_joint_model_shows_contributions(tiny_config, tokenizer, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(results, "draw_explanations", lambda explanations, path: drawn.extend(explanations))
    model = MaskAttnForJointClassification(tiny_config(sequence_label_names=["x", "y"]))
    assert draw_picture(model, tokenizer, ["tail", "woof woof"], tmp_path / "a.png")
    assert [explanation.labels for explanation in drawn] == [["x", "y"]] * 2


def test_picture_of_a_tagger_shows_attention(tiny_config, tokenizer, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(results, "draw_attention_maps", lambda panels, path: drawn.extend(*panels.values()))
    draw_picture(MaskAttnForTokenClassification(tiny_config()), tokenizer, ["tail", "woof woof"], tmp_path / "a.png")
    assert [int(row.mask.sum()) for row in drawn] == [1, 2]
    assert all(row.weight_on_padding == 0 for row in drawn)


def test_no_picture_without_texts(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "find_missing_characters", lambda text: {*text} & {"\u6f22"})
    assert not draw_picture(model, tokenizer, ["\u6f22"], tmp_path / "a.png")
    assert not draw_picture(model, tokenizer, [], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_no_picture_without_matplotlib(model, tokenizer, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level(logging.INFO, logger="hf_maskattn"):
        assert not draw_picture(model, tokenizer, ["woof"], tmp_path / "a.png")
    assert 'no picture. Plots need matplotlib: pip install "hf-maskattn[viz] @ git+https' in caplog.text


def test_failed_picture_is_only_logged(model, tokenizer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(results, "draw_explanations", lambda explanations, path: 1 / 0)
    assert not draw_picture(model, tokenizer, ["woof"], tmp_path / "a.png")
    assert "drawing it failed: ZeroDivisionError('division by zero')" in caplog.text


def test_scripts_without_font_are_named(model, tokenizer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(results, "find_missing_characters", lambda text: {*text} & {"\u6f22", "\u0915"})
    assert draw_picture(model, tokenizer, ["woof"] * 3 + ["\u6f22"], tmp_path / "a.png")
    assert not caplog.messages  # enough texts are left
    assert draw_picture(model, tokenizer, ["woof", "\u6f22", "\u0915"], tmp_path / "a.png")
    (message,) = caplog.messages
    assert message.startswith(
        "The picture of the model card leaves out texts. No installed font has 2 of the characters (CJK, "
    )
    assert "apt install fonts-noto-cjk fonts-noto-core" in message


def test_alignments_of_a_card_are_cut():
    alignment = AlignmentMap(["a"], ["b"] * 100, torch.ones(100, 1), num_heads=1)
    assert len(results._first_targets(alignment).target) == 30
    assert results._first_targets(alignment).weights.shape == (30, 1)


@pytest.mark.parametrize(
    ("name", "shown", "datasets"),
    [(None, "train.jsonl", None), ("Pets of a town", "Pets of a town", None), ("someone/pets", "someone/pets", "someone/pets")],
)
def test_card_names_the_data(write, tmp_path, name, shown, datasets):
    _, card = write(name=name)
    assert f"**{shown}**" in card.text
    assert str(tmp_path) not in card.content
    header = card.data.to_dict()
    assert header.get("datasets") == datasets
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == shown


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(publish_module, "load_without_package", lambda folder: 600)
    monkeypatch.setattr("hf_maskattn.hub.upload.WAITS", (0.01,))


def read(tmp_path, **training):
    return load_toy(tmp_path, training={"push_to_hub": True, **training})


def test_every_save_and_the_end_are_published(tmp_path, connected):
    report = train(read(tmp_path, hub_model_id="pets", hub_private_repo=True))
    repository = connected.repository("user/pets")
    title = f"Model of hf-maskattn {CODE_VERSION}"
    assert repository.titles() == [title, f"{title} in training, step 10", f"{title} in training, step 5"]
    assert repository.private
    assert report.publication.commit == repository.at().oid
    assert b"accuracy" in repository.files()["README.md"]
    for commit in repository.history()[:-1]:
        names = set(commit.tree)
        assert {"model.safetensors", "config.json", "modeling_maskattn.py", "tokenizer.json", "README.md"} <= names
        assert not any(name.endswith((".bin", ".pt", ".pth")) or "/" in name for name in names)
    weights = repository.files()["model.safetensors"]
    assert weights == (tmp_path / "run" / "model.safetensors").read_bytes()


def test_hub_strategy_end_publishes_once(tmp_path, connected):
    train(read(tmp_path, hub_strategy="end", hub_revision="dev"))
    assert len(connected.repository("user/run").titles("dev")) == 1
    assert connected.repository("user/run").titles() == []


@pytest.mark.slow
def test_failed_publication_of_a_save_is_only_logged(tmp_path, connected, caplog):
    connected.fail("POST", "*/commit/main", faults.status(500), times=2)
    with caplog.at_level(logging.WARNING):
        train(read(tmp_path))
    assert "The checkpoint of step 5 was not published. Training continues. http" in caplog.text
    assert len(connected.repository("user/run").titles()) == 2


def test_failed_publication_of_a_run_keeps_its_results(tmp_path, connected):
    connected.fail("POST", "*/commit/main", faults.status(500), times=100)
    with pytest.raises(NotPublished) as caught:
        train(read(tmp_path, hub_strategy="end", hub_private_repo=True))
    folder = tmp_path / "run"
    assert str(caught.value).startswith(f"the run in {folder} is finished, but was not published. http")
    assert str(caught.value).endswith(f"To publish it: hf-maskattn push {folder} user/run --private")
    assert caught.value.report.metrics == json.loads((folder / "metrics.json").read_text())["metrics"]
    assert (folder / "model.safetensors").is_file()
    assert connected.repository("user/run").titles() == []


def test_missing_permission_is_reported_before_training(tmp_path, connected, monkeypatch):
    monkeypatch.setattr(train_module, "assemble", None)
    with pytest.raises(PermissionError, match="The token has no write access to someone/pets"):
        train(read(tmp_path, hub_model_id="someone/pets"))
    assert not (tmp_path / "run").exists()


def test_hub_target_is_read_from_the_arguments(tmp_path):
    args = Seq2SeqTrainingArguments(tmp_path / "run", push_to_hub=True, hub_revision="dev", use_cpu=True)
    assert HubTarget.from_arguments(args) == HubTarget("run", None, "dev", at_every_save=True)


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_hub_strategies_with_optimizer_states_raise(tmp_path, strategy):
    message = rf"training\.hub_strategy must be one of end, every_save, got '{strategy}', which would publish pickled"
    with pytest.raises(ValueError, match=message):
        train(read(tmp_path, hub_strategy=strategy))
