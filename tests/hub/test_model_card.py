import math
from unicodedata import category

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.hub.model_card import TrainingData, build_model_card, parse_model_card, rename_in_card

METRICS = {"validation": {"loss": 0.5, "accuracy": 0.75, "runtime": 3.0}, "test": {"loss": 0.25, "accuracy": 0.875}}
ABOUT = {"name": "pets", "hub_id": None, "description": "", "license": "", "homepage": "", "rows": {"train": 1200}}


@pytest.fixture
def card(tiny_config):
    """Build the card of a model with three labels."""

    def build(name="toy", task="text-classification", metrics=METRICS, data=(), **settings):
        about = None if data is None else TrainingData(**{**ABOUT, **dict(data)})
        config = tiny_config(num_labels=3, sequence_label_names=["x", "y"] if task == "joint-classification" else None)
        return build_model_card(name, config, 1234, task, about, metrics, ["accuracy"], **settings)

    return build


def test_card_header_has_task_and_results(card, tmp_path):
    card(data={"hub_id": "someone/pets"}).save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.pipeline_tag, data.library_name, data.datasets) == ("text-classification", "transformers", "someone/pets")
    assert card().data.datasets is None  # data that is not on the Hub
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


def test_card_results_omit_values_that_are_not_finite(card):
    header = card(metrics={"validation": {"accuracy": math.nan}, "test": {"accuracy": 0.5}}).data
    assert [result.metric_value for result in header.eval_results] == [0.5]
    assert card(metrics={"test": {"accuracy": math.inf}}).data.eval_results is None


def test_card_has_table_of_metrics(card):
    assert "| split | loss | accuracy |\n|---|---:|---:|\n| validation | 0.5000 | 0.7500 |" in card().text


def test_card_describes_data(card):
    text = card(data={"description": "Sounds.\n\n# of pets", "homepage": "https://example.org"}).text
    assert "**pets** (https://example.org)\n\n> Sounds.\n>\n> # of pets\n\nRows: train 1,200." in text


def test_card_names_licenses_of_code_data_and_weights(card):
    header, text = card(data={"license": "Unicode-3.0"}).data, card(data={"license": "Unicode-3.0"}).text
    assert header.license == "unknown"
    assert "- Code: Apache-2.0.\n- Data: Unicode-3.0.\n- Weights: `license: unknown` in the header" in text
    assert "- Data: not documented by its source." in card().text


def test_card_shows_loading_with_and_without_package(card):
    text = card().text
    assert (
        'import hf_maskattn\nfrom transformers import pipeline\n\nmodel = pipeline("text-classification", model="toy")' in text
    )
    assert 'pipeline("text-classification", model="toy", trust_remote_code=True)' in text


def test_card_warns_about_truncating_pipeline(card):
    assert "model.tokenizer.model_max_length = 10**9" in card(task="token-classification").text
    assert "model_max_length" not in card().text


def test_card_describes_model(card):
    assert "text-classification, 3 labels: 1 bidirectional LSTM layer of width 8" in card().text
    fine_tuned = card(base_model="mine")
    assert "1,234 parameters. Fine-tuned from mine." in fine_tuned.text
    assert fine_tuned.data.base_model is None
    assert card(base_model="base/model", base_model_id="base/model").data.base_model == "base/model"
    assert "1,234 parameters. Its embeddings were initialized with glove.txt. Pad" in card(embeddings="glove.txt").text
    assert "for fill-mask: 1 bidirectional" in card(task="fill-mask").text


def test_card_shows_picture(card):
    text = card(picture="attention.png").text
    assert "## Explanation\n\n![Contributions of the tokens of texts to their predicted classes](attention.png)" in text
    assert "orange for the class, blue against it" in text
    assert "## Attention" not in text
    assert "## Explanation" in card(picture="attention.png", task="joint-classification").text
    tagger = card(picture="attention.png", task="token-classification").text
    assert "## Attention\n\n![Attention over texts](attention.png)" in tagger
    assert "## Explanation" not in tagger
    assert "## Attention" not in card().text


@pytest.mark.parametrize("picture", ["attention.png", None])
def test_card_describes_attention(card, picture):
    text = card(picture=picture, attention="The attention is a mean.").text
    assert text.count("## Attention\n\n") == 1
    assert "\n\nThe attention is a mean.\n\n## Limits\n\n" in text
    assert ("## Explanation\n\n![Contributions" in text) == (picture is not None)


def test_card_widget_has_first_texts(card):
    examples = ["", " \n", "a  cat\nmeows", "a cat meows", "bell\a", "long " * 100, "fourth"]
    assert card(examples=examples).data.widget == [{"text": text} for text in ("a cat meows", "bell", "long " * 40)]
    assert "widget" not in card().data.to_dict()


def test_card_without_data_task_and_metrics(card):
    without = card(task=None, metrics=None, data=None)
    assert 'tokenizer = AutoTokenizer.from_pretrained("toy")\nmodel = AutoModel.from_pretrained("toy")\n' in without.text
    assert 'AutoTokenizer.from_pretrained("toy", trust_remote_code=True)\nmodel = AutoModel.from_pretr' in without.text
    assert "The training data is not documented." in without.text
    assert "- Data: not documented." in without.text
    assert set(without.data.to_dict()) == {"library_name", "license", "tags"}


HOSTILE = [
    *("---", "{{ 1 }}", "{% if", "a\n---\nb", "```", "<script>x</script>", "'\"", "- a: {b", "\x00\x85\u2028"),
    *("%YAML", "a\n## b", "&anchor *a"),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(HOSTILE)


@given(text=TEXT, name=TEXT, other=TEXT)
def test_card_is_valid_whatever_the_data_contains(text, name, other):
    from hf_maskattn import MaskAttnConfig

    data = TrainingData(name or "n", None, text, other, other, {"train": 1})
    metrics = {"test": {"accuracy": 0.5}}
    built = build_model_card("toy", MaskAttnConfig(), 1, "fill-mask", data, metrics, ["accuracy"], examples=[text, other])
    header, body = str(built).removeprefix("---\n").split("\n---\n", 1)
    values = yaml.safe_load(header)
    assert set(values) <= {"library_name", "license", "pipeline_tag", "tags", "widget", "model-index"}
    assert all(entry["text"].split() for entry in values.get("widget", ()))
    (result,) = ModelCard(str(built)).data.eval_results
    assert result.dataset_name.split() == "".join(" " if category(char) == "Cc" else char for char in name or "n").split()
    assert result.metric_value == 0.5
    headings = [line for line in body.splitlines() if line.startswith("## ")]
    assert headings == ["## Data", "## Results", "## Use", "## Limits", "## License"]
    assert "<script" not in body


def test_rename_in_card(card):
    renamed = rename_in_card(str(card()), "someone/pets")
    assert "\n# someone/pets\n" in renamed
    assert renamed.count('model="someone/pets"') == 2
    assert parse_model_card(renamed).data.model_name == "someone/pets"
    assert "toy" not in renamed
    assert rename_in_card(rename_in_card(str(card()), "a/b"), "someone/pets") == renamed
    bare = str(card(task=None, metrics=None, data=None))
    assert rename_in_card(bare, "someone/pets") == bare.replace("toy", "someone/pets")


@pytest.mark.parametrize(
    "text", ["# toy\n\nMine.\n", "no heading\n", '---\nlicense: mit\n---\n# My pets\n\n`pipeline(model="toy")`\n']
)
def test_rename_in_card_keeps_other_cards(text):
    assert rename_in_card(text, "someone/pets") == text


@pytest.mark.parametrize("text", ["---\n{ a: [\n---\n# toy\n", "---\n- a\n---\n", "---\nmodel-index: [1]\n---\n"])
def test_rename_in_card_rejects_invalid_header(text):
    with pytest.raises(ValueError, match="The header of the model card is not valid: "):
        rename_in_card(text, "someone/pets")


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
def test_card_names_tag_scheme(tiny_config, tag_scheme, line):
    config = tiny_config(num_labels=3, tag_scheme=tag_scheme)
    assert line in build_model_card("toy", config, 1234, "token-classification").text
    assert "Tag scheme" not in build_model_card("toy", tiny_config(num_labels=3), 1234, "token-classification").text
