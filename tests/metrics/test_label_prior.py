import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from hf_maskattn.metrics.classification import prior_loss
from hf_maskattn.training.train import _compare_with_prior_loss
from tests.training.toy_recipe import assemble_toy

LABELS = np.array([0, 0, 0, 1, 2, 2, 0, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_prior_loss_is_that_of_the_best_constant_prediction(smoothing):
    targets = torch.tensor(LABELS)
    frequencies = (1 - smoothing) * torch.bincount(targets) / len(targets) + smoothing / 3
    expected = cross_entropy(frequencies.log().expand(len(targets), -1), targets, label_smoothing=smoothing)
    ignored = np.append(LABELS, [-100, -100])
    assert prior_loss(ignored, None, smoothing) == pytest.approx(expected.item())


def test_prior_loss_of_several_labels_and_of_numbers():
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    expected = binary_cross_entropy_with_logits(targets.mean(0).logit().expand(4, -1), targets)
    assert prior_loss(targets.numpy(), "multi_label_classification") == pytest.approx(expected.item())
    assert prior_loss(np.eye(2), "multi_label_classification") == pytest.approx(np.log(2))
    numbers = torch.tensor([1.0, 2.0, 6.0])
    assert prior_loss(numbers.numpy(), "regression") == pytest.approx(mse_loss(numbers.mean().expand(3), numbers).item())


@pytest.mark.parametrize(
    ("task", "is_warned"), [("text-classification", True), ("token-classification", True), ("fill-mask", False)]
)
def test_run_that_learned_nothing_is_reported(tmp_path, task, is_warned):
    assembly = assemble_toy(tmp_path, task=task)
    for loss in (0.2, 0.9):
        assembly.trainer.state.log_history = [{"loss": 0.1}, {"loss": loss}, {"eval_loss": 0.1}]
        messages = _compare_with_prior_loss(assembly)
        assert any("has learned next to nothing. Try another training.learning_rate" in text for text in messages) == (
            is_warned and loss == 0.9
        )
