"""Token classification with a CRF: loss, logits and marginals of the head, and checkpoints with and without one."""

import logging
from logging.handlers import BufferingHandler

import pytest
import torch
from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments, pipeline

import hf_maskattn
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.model.crf import log_likelihood, marginals, max_marginals
from tests.crf_reference import ReferenceCRF
from tests.heads import HEADS
from tests.masks import ragged_mask
from tests.tolerances import OUTPUT

LABELS = ["O", "B-PER", "I-PER"]
INFINITY = float("inf")


@pytest.fixture
def tagger(tiny_config):
    """Builds a tagger with random weights, also of its CRF if it has one."""

    def build(**changes):
        model = hf_maskattn.MaskAttnForTokenClassification(tiny_config(id2label=dict(enumerate(LABELS)), **changes))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.5)
        return model.eval()

    return build


@pytest.fixture
def batch():
    mask = ragged_mask(4, 6, "empty")
    return {"input_ids": torch.randint(40, mask.shape), "attention_mask": mask.long()}


def test_logits_are_emissions_in_training_and_max_marginals_in_evaluation(tagger, batch):
    model, mask = tagger(use_crf=True), batch["attention_mask"].bool()
    emissions = model.train()(**batch).logits
    assert emissions.requires_grad
    outputs = model.eval()(**batch, output_marginals=True)
    scores = model.crf.constrained_scores()
    assert torch.equal(outputs.logits, max_marginals(emissions, mask, *scores))
    assert torch.equal(outputs.marginals, marginals(emissions, mask, *scores))
    assert model(**batch).marginals is None


def test_marginals_without_crf_are_probabilities(tagger, batch):
    outputs = tagger()(**batch, output_marginals=True)
    mask = batch["attention_mask"].bool()
    assert torch.equal(outputs.marginals[mask], outputs.logits[mask].softmax(-1))
    assert not outputs.marginals[~mask].any()


@pytest.mark.parametrize("num_items", [None, 1, 7])
def test_loss_is_divided_by_the_number_of_labels(tagger, batch, num_items):
    model, mask = tagger(use_crf=True), batch["attention_mask"].bool()
    labels = torch.where(torch.rand(mask.shape) < 0.5, 1, -100)
    emissions = model.train()(**batch).logits
    expected = -log_likelihood(emissions, mask, labels, *model.crf.constrained_scores()).sum()
    count = ((labels == 1) & mask).sum() if num_items is None else num_items
    for mode in (True, False):
        loss = model.train(mode)(**batch, labels=labels, num_items_in_batch=num_items).loss
        torch.testing.assert_close(loss, expected / count)


def test_tag_scheme_none_allows_all_transitions(tagger, caplog):
    assert tagger(use_crf=True).crf.start_constraints.tolist() == [0, 0, -INFINITY]
    assert not tagger(use_crf=True, tag_scheme="none").crf.transition_constraints.any()
    assert not caplog.records


def test_labels_of_no_scheme_are_reported_once(tiny_config, caplog):
    with caplog.at_level(logging.WARNING, logger="hf_maskattn"):
        for _ in range(2):
            model = hf_maskattn.MaskAttnForTokenClassification(tiny_config(id2label={0: "NOUN", 1: "VERB"}, use_crf=True))
    assert not model.crf.start_constraints.any()
    messages = [record.getMessage() for record in caplog.records if "NOUN" in record.getMessage()]
    assert len(messages) == 1
    assert "NOUN, VERB belong to no tag scheme, so that the CRF allows all transitions" in messages[0]


def test_saved_crf_has_the_same_outputs(tagger, batch, tmp_path):
    model = tagger(use_crf=True)
    model.save_pretrained(tmp_path)
    loaded = hf_maskattn.MaskAttnForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert torch.equal(loaded.crf.transition_constraints, model.crf.transition_constraints)


@pytest.fixture
def warnings_of_transformers():
    """The warnings that transformers logs, whose logger does not propagate them."""
    logger, handler = logging.getLogger("transformers"), BufferingHandler(capacity=1000)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    yield handler.buffer
    logger.setLevel(level)
    logger.removeHandler(handler)


def test_checkpoint_without_crf_gets_a_new_one(tagger, batch, tmp_path, warnings_of_transformers):
    model = tagger()
    model.save_pretrained(tmp_path)
    loaded, report = hf_maskattn.MaskAttnForTokenClassification.from_pretrained(
        tmp_path, use_crf=True, output_loading_info=True
    )
    assert set(report["missing_keys"]) == {"crf.transitions", "crf.start", "crf.end"}
    assert sum("crf.transitions" in record.getMessage() for record in warnings_of_transformers) == 1
    assert not any(parameter.any() for parameter in loaded.crf.parameters())
    assert loaded.crf.start_constraints.tolist() == [0, 0, -INFINITY]
    assert torch.equal(loaded.train()(**batch).logits, model(**batch).logits)


def test_checkpoint_with_crf_loads_without(tagger, batch, tmp_path, warnings_of_transformers):
    model = tagger(use_crf=True)
    model.save_pretrained(tmp_path)
    loaded, report = hf_maskattn.MaskAttnForTokenClassification.from_pretrained(
        tmp_path, use_crf=False, output_loading_info=True
    )
    assert loaded.crf is None
    assert set(report["unexpected_keys"]) == {"crf.transitions", "crf.start", "crf.end"}
    assert sum("crf.transitions" in record.getMessage() for record in warnings_of_transformers) == 1
    assert torch.equal(loaded(**batch).logits, model.train()(**batch).logits)


def test_trainer_and_pipeline_return_the_best_sequence(tagger, tmp_path):
    texts = ["ab cab", "ba abc c", "cc", "abcab b a", "b ac cba"]
    tokenizer = train_tokenizer(texts * 20, kind="wordpiece", vocab_size=12, max_length=16)
    encoded = tokenizer(texts)
    labels = []
    for row in range(len(texts)):
        words = encoded.word_ids(row)
        # The first piece of each word has a label: O, B-PER, I-PER, O, ...
        labels.append([-100 if word == previous else word % 3 for previous, word in zip([None, *words], words, strict=False)])
    assert any(-100 in row for row in labels)
    rows = [{"input_ids": ids, "labels": row} for ids, row in zip(encoded["input_ids"], labels, strict=True)]
    model = tagger(use_crf=True)
    arguments = TrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
    )
    before = model.crf.transitions.clone()
    trainer.train()
    assert not torch.equal(model.crf.transitions, before)
    predicted = trainer.predict(rows).predictions.argmax(-1)
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
    for text, row, tags in zip(texts, rows, predicted, strict=True):
        ids = torch.tensor([row["input_ids"]])
        emissions = model.train()(input_ids=ids).logits[0].detach()
        model.eval()
        best = ReferenceCRF(*(score.detach() for score in model.crf.constrained_scores())).best_path(emissions)
        assert tags[: len(best)].tolist() == list(best)
        assert [item["entity"] for item in tag(text)] == [LABELS[label] for label in best]
        assert all(previous in (1, 2) for previous, label in zip((0, *best), best, strict=False) if label == 2)


def test_joint_head_has_a_crf(tiny_config, batch):
    settings = {**HEADS["MaskAttnForJointClassification"], "id2label": dict(enumerate(LABELS)), "use_crf": True}
    model = hf_maskattn.MaskAttnForJointClassification(tiny_config(**settings))
    labels = torch.zeros_like(batch["input_ids"])
    model(**batch, labels=labels, sequence_labels=labels[:, 0]).loss.backward()
    assert model.crf.transitions.grad.abs().sum() > 0
    mask = batch["attention_mask"].bool()
    emissions = model(**batch).logits
    actual = model.eval()(**batch).logits
    torch.testing.assert_close(actual, model.crf.max_marginals(emissions, mask), atol=OUTPUT, rtol=0)
