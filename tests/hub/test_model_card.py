import math
from unicodedata import category

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.hub.model_card import TrainingData, build_model_card, name_in_card, read_model_card

METRICS = {"validation": {"loss": 0.5, "accuracy": 0.75, "runtime": 3.0}, "test": {"loss": 0.25, "accuracy": 0.875}}
ABOUT = {"name": "pets", "hub_id": None, "description": "", "license": "", "homepage": "", "rows": {"train": 1200}}


@pytest.fixture
def card(tiny_config):
    """Build a card of a model with three labels, on the given data."""

    def build(name="toy", task="text-classification", metrics=METRICS, data=(), **settings):
        about = None if data is None else TrainingData(**{**ABOUT, **dict(data)})
        return build_model_card(name, tiny_config(num_labels=3), 1234, task, about, metrics, ["accuracy"], **settings)

    return build


def test_the_header_holds_task_and_results(card, tmp_path):
    card(data={"hub_id": "someone/pets"}).save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.pipeline_tag, data.library_name, data.datasets) == ("text-classification", "transformers", "someone/pets")
    assert data.eval_results == [
        EvalResult(
            task_type="text-classification",
            dataset_type="someone/pets",
            dataset_name="pets",
            dataset_split=split,
            metric_type="accuracy",
            metric_value=value,
        )
        for split, value in (("validation", 0.75), ("test", 0.875))
    ]


def test_a_score_that_is_no_number_is_not_a_result(card):
    header = card(metrics={"validation": {"accuracy": math.nan}, "test": {"accuracy": 0.5}}).data
    assert [result.metric_value for result in header.eval_results] == [0.5]
    assert card(metrics={"test": {"accuracy": math.inf}}).data.eval_results is None


def test_data_that_is_not_on_the_hub_is_not_linked(card):
    assert card().data.datasets is None


def test_the_numbers_stand_in_a_table(card):
    assert "| split | loss | accuracy |\n|---|---:|---:|\n| validation | 0.5000 | 0.7500 |" in card().text


def test_the_data_is_described(card):
    text = card(data={"description": "Sounds.\n\n# of pets", "homepage": "https://example.org"}).text
    assert "**pets** (https://example.org)\n\n> Sounds.\n>\n> # of pets\n\nRows: train 1,200." in text


def test_it_tells_the_licenses_of_code_data_and_weights(card):
    header, text = card(data={"license": "Unicode-3.0"}).data, card(data={"license": "Unicode-3.0"}).text
    assert header.license == "unknown"
    assert "- Code: Apache-2.0.\n- Data: Unicode-3.0.\n- Weights: `license: unknown` in the header" in text
    assert "- Data: not told by the data." in card().text


def test_it_tells_how_to_load_with_and_without_the_package(card):
    text = card().text
    assert (
        'import hf_maskattn\nfrom transformers import pipeline\n\nmodel = pipeline("text-classification", model="toy")' in text
    )
    assert 'pipeline("text-classification", model="toy", trust_remote_code=True)' in text


def test_it_tells_that_a_pipeline_cuts_where_one_does(card):
    assert "model.tokenizer.model_max_length = 10**9" in card(task="token-classification").text
    assert "model_max_length" not in card().text


def test_it_tells_what_the_model_is(card):
    assert "text-classification, 3 labels: 1 bidirectional LSTM layer of width 8" in card().text
    fine_tuned = card(base_model="mine")
    assert "1,234 parameters. Fine-tuned from mine." in fine_tuned.text
    assert fine_tuned.data.base_model is None
    assert card(base_model="base/model", base_model_id="base/model").data.base_model == "base/model"
    assert "for fill-mask: 1 bidirectional" in card(task="fill-mask").text


def test_limits_are_told(card):
    assert "## Limits" in card().text


def test_the_picture_is_shown_if_there_is_one(card):
    assert "![Attention over texts](attention.png)" in card(picture="attention.png").text
    assert "## Attention" not in card().text


def test_the_first_few_texts_are_there_to_be_tried(card):
    examples = ["", " \n", "a  cat\nmeows", "a cat meows", "bell\a", "long " * 100, "fourth"]
    assert card(examples=examples).data.widget == [{"text": text} for text in ("a cat meows", "bell", "long " * 40)]
    assert "widget" not in card().data.to_dict()


def test_a_model_without_data_task_or_scores_has_a_card(card):
    without = card(task=None, metrics=None, data=None)
    assert 'tokenizer = AutoTokenizer.from_pretrained("toy")\nmodel = AutoModel.from_pretrained("toy")\n' in without.text
    assert 'AutoTokenizer.from_pretrained("toy", trust_remote_code=True)\nmodel = AutoModel.from_pretr' in without.text
    assert "What it was trained on is not told here." in without.text
    assert "- Data: not told here." in without.text
    assert set(without.data.to_dict()) == {"library_name", "license", "tags"}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["---", "a\n---\nb", "```", "<script>x</script>", "'\"", "- a: {b", "\x00\x85\u2028", "%YAML", "a\n## b", "&anchor *a"]
)


@given(text=TEXT, name=TEXT, other=TEXT)
def test_whatever_the_data_says_the_card_is_valid_and_keeps_its_parts(text, name, other):
    from hf_maskattn import MaskAttnConfig

    data = TrainingData(name or "n", None, text, other, other, {"train": 1})
    metrics = {"test": {"accuracy": 0.5}}
    built = build_model_card("toy", MaskAttnConfig(), 1, "fill-mask", data, metrics, ["accuracy"], examples=[text, other])
    header, body = str(built).removeprefix("---\n").split("\n---\n", 1)
    values = yaml.safe_load(header)
    assert set(values) <= {"library_name", "license", "pipeline_tag", "tags", "widget", "model-index"}
    assert all(entry["text"].split() for entry in values.get("widget", ()))
    (result,) = ModelCard(str(built)).data.eval_results
    assert result.dataset_name.split() == "".join(" " if category(sign) == "Cc" else sign for sign in name or "n").split()
    assert result.metric_value == 0.5
    assert [line for line in body.splitlines() if line.startswith("## ")] == [
        "## Data",
        "## Results",
        "## Use",
        "## Limits",
        "## License",
    ]
    assert "<script" not in body


def test_a_card_takes_the_name_of_a_repository(card):
    renamed = name_in_card(str(card()), "someone/pets")
    assert "\n# someone/pets\n" in renamed
    assert renamed.count('model="someone/pets"') == 2
    assert read_model_card(renamed).data.model_name == "someone/pets"
    assert "toy" not in renamed
    assert name_in_card(name_in_card(str(card()), "a/b"), "someone/pets") == renamed
    bare = str(card(task=None, metrics=None, data=None))
    assert name_in_card(bare, "someone/pets") == bare.replace("toy", "someone/pets")


@pytest.mark.parametrize(
    "text", ["# toy\n\nMine.\n", "no heading\n", '---\nlicense: mit\n---\n# My pets\n\n`pipeline(model="toy")`\n']
)
def test_a_card_that_somebody_wrote_stays_as_it_is(text):
    assert name_in_card(text, "someone/pets") == text


@pytest.mark.parametrize("text", ["---\n{ a: [\n---\n# toy\n", "---\n- a\n---\n", "---\nmodel-index: [1]\n---\n"])
def test_a_header_that_cannot_be_read_is_told(text):
    with pytest.raises(ValueError, match="the header of the model card cannot be read: "):
        name_in_card(text, "someone/pets")


@pytest.mark.parametrize(
    ("tag_scheme", "line"),
    [
        (
            "BIOES",
            "Tag scheme of the data: BIOES. The labels mark the same entities in IOB2 (B-, I-, O), which pipelines read.",
        ),
        ("none", "Tag scheme of the data: none. The label of the first token of a word is its tag."),
    ],
)
def test_the_tag_scheme_is_named(tiny_config, tag_scheme, line):
    config = tiny_config(num_labels=3, tag_scheme=tag_scheme)
    assert line in build_model_card("toy", config, 1234, "token-classification").text
    assert "Tag scheme" not in build_model_card("toy", tiny_config(num_labels=3), 1234, "token-classification").text
