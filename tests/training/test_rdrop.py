from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from hf_maskattn.training.callbacks import TrainingInterrupted
from hf_maskattn.training.class_weights import WeightedLoss
from hf_maskattn.training.rdrop import RDropLoss
from hf_maskattn.training.train import train
from tests.training.toy_recipe import STREAM, assemble_toy, load_toy

RDROP = "training.rdrop_alpha=2"


def test_loss_is_half_of_the_loss_of_the_paper():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4), torch.tensor([0, 3, 1])
    losses = [cross_entropy(one, labels, reduction="sum") for one in logits]
    p, q = logits.log_softmax(-1)
    divergence = kl_div(p, q, reduction="sum", log_target=True) + kl_div(q, p, reduction="sum", log_target=True)
    expected = (sum(losses) + 5 * divergence / 2) / 2 / 3
    actual = RDropLoss(5)({"logits": logits.flatten(0, 1)}, labels.repeat(2))
    torch.testing.assert_close(actual, expected)


def test_equal_predictions_have_the_loss_of_the_labels():
    logits, labels = torch.randn(5, 3).repeat(2, 1), torch.tensor([0, 1, 2, -100, 1]).repeat(2)
    torch.testing.assert_close(RDropLoss(3)({"logits": logits}, labels), cross_entropy(logits, labels))
    smooth = cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(RDropLoss(3, WeightedLoss(label_smoothing=0.1))({"logits": logits}, labels), smooth)
    weighted = WeightedLoss(torch.tensor([0.5, 2.0, 1.0]))
    actual = RDropLoss(3, weighted)({"logits": logits}, labels)
    torch.testing.assert_close(actual, weighted({"logits": logits}, labels))


def test_tokens_without_a_label_do_not_count():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5, 3), torch.tensor([[0, -100, 2, 1, -100], [1, 1, -100, -100, -100]]).repeat(2, 1)
    kept = labels != -100
    expected = RDropLoss(2)({"logits": logits[kept]}, labels[kept])
    torch.testing.assert_close(RDropLoss(2)({"logits": logits}, labels), expected)
    nothing = RDropLoss(2)({"logits": logits}, torch.full_like(labels, -100))
    assert nothing == 0


@pytest.mark.parametrize("loss_of_a_pass", [WeightedLoss(), WeightedLoss(torch.tensor([0.5, 2.0, 1.0]))])
def test_accumulated_batches_give_the_loss_of_one_batch(loss_of_a_pass):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 6, 3), torch.tensor([0, 1, 2, 1, 1, -100])
    loss = RDropLoss(2, loss_of_a_pass)
    parts = [
        loss({"logits": logits[:, rows].flatten(0, 1)}, labels[rows].repeat(2), num_items_in_batch=10)
        for rows in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(sum(parts), loss({"logits": logits.flatten(0, 1)}, labels.repeat(2)))


def test_unknown_words_depend_on_the_epoch_of_each_collator(tmp_path):
    collator = assemble_toy(tmp_path, RDROP, "data.unknown_word_dropout=20").trainer.data_collator
    rows = [{"input_ids": [*range(3, 9)], "attention_mask": [1] * 6, "labels": 0}]
    other = collator.with_own_epoch()
    first = collator(rows)["input_ids"]
    collator.set_epoch(1)
    assert not torch.equal(collator(rows)["input_ids"], first)
    assert torch.equal(other(rows)["input_ids"], first)
    assert collator.for_evaluation()(rows)["input_ids"].tolist() == [[*range(3, 9)]]


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_training_has_each_row_twice_and_evaluation_once(tmp_path, task):
    trainer = assemble_toy(tmp_path, RDROP, task=task).trainer
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 16
    for values in batch.values():
        assert torch.equal(*values.chunk(2))
    assert next(iter(trainer.get_eval_dataloader()))["input_ids"].shape[0] == 8


@pytest.mark.parametrize(
    "settings",
    [
        [],
        [*STREAM, "training.max_steps=20"],
        ["training.label_smoothing_factor=0.1", "training.class_weights=balanced"],
    ],
)
def test_large_alpha_leaves_predictions_that_do_not_depend_on_dropout(tmp_path, settings):
    spread = {}
    for alpha in (0, 1000):
        trainer = assemble_toy(
            tmp_path, f"training.rdrop_alpha={alpha}", *settings, model={"embedding_dropout_prob": 0.5}
        ).trainer
        trainer.train()
        batch = trainer._prepare_inputs(next(iter(trainer.get_eval_dataloader())))
        trainer.model.train()
        with torch.no_grad():
            spread[alpha] = torch.stack([trainer.model(**batch).logits.softmax(-1) for _ in range(20)]).std(0).mean()
    assert spread[1000] < spread[0] / 2


def test_resumed_run_equals_an_uninterrupted_run(tmp_path, interrupt_at):
    full = train(load_toy(tmp_path, f"training.output_dir={tmp_path / 'full'}", RDROP))
    recipe = load_toy(tmp_path, RDROP)
    interrupt_at(3)
    with pytest.raises(TrainingInterrupted):
        train(recipe)
    interrupt_at(0)
    resumed = train(recipe, resume=True)
    assert resumed.metrics["test"]["loss"] == full.metrics["test"]["loss"]
    once = train(load_toy(tmp_path, f"training.output_dir={tmp_path / 'once'}"))
    assert once.metrics["test"]["loss"] != full.metrics["test"]["loss"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.rdrop_alpha=-1"], "must be 0 or greater, got -1. 1 to 5 is usual."),
        (["training.rdrop_alpha=.inf"], "must be 0 or greater, got inf. 1 to 5 is usual."),
        ([RDROP, "model.problem_type=regression"], "=2 is not supported with model.problem_type=regression, because"),
        ([RDROP, "model.problem_type=multi_label_classification"], "is not supported with model.problem_type=multi_label"),
        ([RDROP, "teacher.model=any"], "=2 is not supported with a teacher, which has a loss of its own. Remove it."),
        (
            [RDROP, *(f"model.{name}_dropout_prob=0" for name in ("embedding", "hidden", "attention"))],
            "has no effect without dropout, got 0 for embedding_dropout_prob, hidden_dropout_prob, attention_dropout_prob",
        ),
    ],
)
def test_rdrop_without_effect_raises(tmp_path, settings, message):
    with pytest.raises(ValueError, match=r"^training\.rdrop_alpha") as raised:
        train(load_toy(tmp_path, *settings))
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_rdrop_of_a_crf_raises(tmp_path):
    recipe = load_toy(tmp_path, RDROP, task="token-classification")
    with pytest.raises(ValueError, match=r"rdrop_alpha=2 is not supported with model\.use_crf=true"):
        train(replace(recipe, model=replace(recipe.model, config={"use_crf": True})))


@pytest.mark.parametrize("task", ["fill-mask", "text2text-generation", "joint-classification"])
def test_rdrop_of_other_tasks_raises(tmp_path, task):
    with pytest.raises(ValueError, match=r"^training\.rdrop_alpha has no effect with model\.task="):
        load_toy(tmp_path, RDROP, task=task)
