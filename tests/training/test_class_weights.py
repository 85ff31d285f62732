from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from hf_maskattn.inference.evaluate import evaluate
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.class_weights import WeightedLoss
from hf_maskattn.training.train import train
from tests.training.toy_recipe import STREAM, assemble_toy, load_toy, with_several_labels

BALANCED = "training.class_weights=balanced"
WEIGHTS = torch.tensor([0.5, 2.0, 1.0])


def test_loss_is_the_weighted_sum_over_the_number_of_labels():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[0, 1, -100, 2], [1, 1, -100, -100]])
    kept = labels != -100
    log_probs = logits.log_softmax(-1)[kept]
    picked = -log_probs.gather(1, labels[kept][:, None])[:, 0] * WEIGHTS[labels[kept]]
    torch.testing.assert_close(WeightedLoss(WEIGHTS)({"logits": logits}, labels), picked.sum() / 5)
    smooth = 0.9 * picked.sum() + 0.1 / 3 * -(log_probs * WEIGHTS).sum()
    torch.testing.assert_close(WeightedLoss(WEIGHTS, label_smoothing=0.1)({"logits": logits}, labels), smooth / 5)


def test_accumulated_batches_give_the_loss_of_one_batch():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 1, 1, -100])
    loss = WeightedLoss(WEIGHTS)
    parts = [loss({"logits": logits[rows]}, labels[rows], num_items_in_batch=5) for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(sum(parts), loss({"logits": logits}, labels))


def test_equal_weights_give_the_loss_without_weights():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 1, 1, 0])
    torch.testing.assert_close(WeightedLoss(torch.ones(3))({"logits": logits}, labels), cross_entropy(logits, labels))


def test_rows_without_labels_have_no_loss_of_several_labels():
    logits = torch.zeros(2, 2, requires_grad=True)
    labels = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
    loss = WeightedLoss(torch.tensor([3.0, 1.0]), is_multi_label=True)({"logits": logits}, labels)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(2 * np.log(2), dtype=torch.float32))
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.75, 0.25], [0.0, 0.0]]))


def test_balanced_weights_are_those_of_scikit_learn(tmp_path):
    assembly = assemble_toy(tmp_path, BALANCED)
    labels = np.array(assembly.data.splits["train"]["labels"])
    expected = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    torch.testing.assert_close(assembly.trainer.training_loss.weights, torch.tensor(expected, dtype=torch.float32))


def test_tags_that_iob2_adds_need_no_tokens(tmp_path):
    assembly = assemble_toy(tmp_path, BALANCED, task="token-classification")
    weights = dict(zip(assembly.data.labels, assembly.trainer.training_loss.weights.tolist(), strict=True))
    tags = [tag for row in assembly.data.splits["train"]["labels"] for tag in row if tag != -100]
    assert weights["I-SOUND"] == 1.0
    share = tags.count(assembly.data.labels.index("B-SOUND")) / len(tags)
    assert weights["B-SOUND"] == pytest.approx(1 / (2 * share))


def test_several_labels_have_weights_of_their_texts(tmp_path):
    model = {"problem_type": "multi_label_classification"}
    assembly = assemble_toy(tmp_path, BALANCED, model=model, make=with_several_labels)
    counts = np.array(assembly.data.splits["train"]["labels"]).sum(0)
    torch.testing.assert_close(
        assembly.trainer.training_loss.weights, torch.tensor((40 - counts) / counts, dtype=torch.float32)
    )


def test_weights_change_training_but_not_evaluation(tmp_path):
    weighted = "training.class_weights={cat: 5.0, dog: 1}"
    report = train(load_toy(tmp_path, weighted, "training.gradient_accumulation_steps=2"))
    again = evaluate(tmp_path / "run", load_recipe(tmp_path / "run" / "recipe.yaml"), "validation").metrics["validation"]
    assert again["loss"] == report.metrics["validation"]["loss"]
    assert "weights" not in (tmp_path / "run" / "config.json").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([BALANCED, "model.problem_type=regression"], "is not supported with model.problem_type=regression"),
        ([BALANCED, *STREAM], "is not supported with data.streaming=true, because it needs all rows"),
        ([BALANCED, "data.labels=[cat, dog, cow, ox]"], "got none of cow, ox. Add rows, correct data.labels"),
        (["training.class_weights={cat: 1}"], "must have a weight for each of cat, dog, and for nothing else. Correct dog."),
        (["training.class_weights={cat: 1, dog: 1, cow: 2}"], "and for nothing else. Correct cow."),
        (["training.class_weights={cat: 0, dog: 1}"], "must be greater than 0, got 0 for cat."),
    ],
)
def test_weights_without_meaning_raise(tmp_path, settings, message):
    with pytest.raises(ValueError, match=r"^training\.class_weights") as raised:
        train(load_toy(tmp_path, *settings))
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_weights_of_a_crf_raise(tmp_path):
    recipe = load_toy(tmp_path, BALANCED, task="token-classification")
    with pytest.raises(ValueError, match=r"is not supported with model\.use_crf=true, whose loss is for whole rows"):
        train(replace(recipe, model=replace(recipe.model, config={"use_crf": True})))


@pytest.mark.parametrize("task", ["fill-mask", "text2text-generation"])
def test_weights_of_other_tasks_raise(tmp_path, task):
    with pytest.raises(ValueError, match=r"^training\.class_weights has no effect with model\.task="):
        load_toy(tmp_path, BALANCED, task=task)
