import json

import pytest

from hf_maskattn import MaskAttnModel
from hf_maskattn.recipes.recipe import read_recipe
from hf_maskattn.training.predict import predict
from hf_maskattn.training.train import train
from tests.training.toy_recipe import write_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a model once for each task and problem type."""
    folders = {}

    def get(task, problem_type=None, make=None):
        if (task, problem_type) not in folders:
            folder = tmp_path_factory.mktemp("trained")
            model = {"problem_type": problem_type} if problem_type else {}
            training = {"num_train_epochs": 8, "learning_rate": 0.03}
            train(read_recipe(write_recipe(folder, task, model=model, training=training, make=make)))
            folders[task, problem_type] = folder / "run"
        return folders[task, problem_type]

    return get


def test_texts_get_their_label_in_order(trained):
    results = list(predict(trained("text-classification"), ["woof woof", "meow purr", "bark"], batch_size=2))
    assert [result["text"] for result in results] == ["woof woof", "meow purr", "bark"]
    assert [result["predictions"][0]["label"] for result in results] == ["dog", "cat", "dog"]
    assert all(0 < result["predictions"][0]["score"] <= 1 for result in results)
    json.dumps(results)


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_texts_without_a_visible_character_have_no_predictions_and_keep_their_place(trained, task):
    word = "meow [MASK]" if task == "fill-mask" else "meow"
    results = list(predict(trained(task), ["", word, " \t", word], batch_size=3))
    assert [bool(result["predictions"]) for result in results][::2] == [False, False]
    assert list(predict(trained(task), [""])) == [{"text": "", "predictions": []}]
    json.dumps(results)


def test_batching_changes_nothing(trained):
    texts = ["woof", "meow purr paw tail paw meow", "bark tail"]
    one, three = (list(predict(trained("text-classification"), texts, batch_size=size)) for size in (1, 3))
    for left, right in zip(one, three, strict=True):
        assert left["predictions"][0]["score"] == pytest.approx(right["predictions"][0]["score"], abs=1e-6)


def test_spans_are_found_in_the_text(trained):
    (result,) = predict(trained("token-classification"), ["paw meow"])
    assert [(span["entity_group"], span["word"], span["start"], span["end"]) for span in result["predictions"]] == [
        ("SOUND", "meow", 4, 8)
    ]


def test_masks_are_filled(trained):
    (result,) = predict(trained("fill-mask"), ["meow [MASK]"])
    assert {"token_str", "score", "sequence"} <= set(result["predictions"][0])


def test_a_text_without_a_mask_is_told(trained):
    with pytest.raises(ValueError, match=r"the text 'meow' has no \[MASK\]: put one where"):
        list(predict(trained("fill-mask"), ["meow"]))
    with pytest.raises(ValueError, match=r"has 2 \[MASK\]: put one where"):
        list(predict(trained("fill-mask"), ["meow [MASK] [MASK]"]))


def test_several_labels_are_all_scored(trained):
    folder = trained(
        "text-classification", "multi_label_classification", make=lambda row: {**row, "label": [row["label"], "animal"]}
    )
    (result,) = predict(folder, ["meow"])
    assert {prediction["label"] for prediction in result["predictions"]} == {"animal", "cat", "dog"}


def test_numbers_are_not_squeezed_into_probabilities(trained):
    folder = trained("text-classification", "regression", make=lambda row: {**row, "label": 30.0})
    (result,) = predict(folder, ["meow"])
    assert result["predictions"][0]["score"] > 1


def test_long_texts_are_cut_as_in_training(trained):
    (result,) = predict(trained("text-classification"), ["meow " * 2000])
    assert result["predictions"][0]["label"] == "cat"


def test_a_model_without_a_head_is_refused(tmp_path, tiny_config):
    MaskAttnModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="was saved as MaskAttnModel, which predicts nothing: train a model with one of"):
        list(predict(tmp_path, ["x"]))


def test_batch_sizes_below_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        list(predict(tmp_path, ["x"], batch_size=0))
