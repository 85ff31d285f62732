import pytest
from huggingface_hub import ModelCard

from hf_maskattn import MaskAttnForSequenceClassification
from hf_maskattn.export.model_card import TrainingData, build_model_card

METRICS = {"validation": {"loss": 0.5, "accuracy": 0.75, "runtime": 3.0}, "test": {"loss": 0.25, "accuracy": 0.875}}


@pytest.fixture
def card(tiny_config):
    """Build a card of a model with three labels, on the given data."""

    def build(base_model=None, **data):
        about = {"name": "pets", "hub_id": None, "description": "", "license": "", "homepage": "", "rows": {"train": 1200}}
        model = MaskAttnForSequenceClassification(tiny_config(num_labels=3))
        return build_model_card(
            "toy", model, "text-classification", TrainingData(**{**about, **data}), METRICS, ["accuracy"], base_model
        )

    return build


def test_the_header_holds_task_and_results(card, tmp_path):
    card(hub_id="someone/pets").save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.pipeline_tag, data.library_name, data.datasets) == ("text-classification", "transformers", "someone/pets")
    results = [(result.dataset_split, result.metric_type, result.metric_value) for result in data.eval_results]
    assert results == [("validation", "accuracy", 0.75), ("test", "accuracy", 0.875)]


def test_data_that_is_not_on_the_hub_is_not_linked(card):
    assert card().data.datasets is None


def test_the_numbers_stand_in_a_table(card):
    assert "| split | loss | accuracy |\n|---|---:|---:|\n| validation | 0.5000 | 0.7500 |" in card().text


def test_the_data_is_named_with_its_license(card):
    assert "License: Unicode-3.0." in card(license="Unicode-3.0").text
    assert "License: not stated by the data." in card().text
    assert "Rows: train 1,200." in card().text


def test_it_tells_how_to_load_with_and_without_the_package(card):
    text = card().text
    assert (
        'import hf_maskattn\nfrom transformers import pipeline\n\nmodel = pipeline("text-classification", model="toy")' in text
    )
    assert 'pipeline("text-classification", model="toy", trust_remote_code=True)' in text


def test_it_tells_what_the_model_is(card):
    assert "text-classification, 3 labels: 1 bidirectional LSTM layer of width 8" in card().text
    assert "Fine-tuned from base/model." in card(base_model="base/model").text


def test_limits_are_told(card):
    assert "## Limits" in card().text
