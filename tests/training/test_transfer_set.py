import json
import logging
import math

import pytest
import torch
import yaml
from transformers import GPT2Config, GPT2ForSequenceClassification

from hf_maskattn import MaskAttnForTokenClassification
from hf_maskattn.training.assembly import assemble
from hf_maskattn.training.teacher import Words
from hf_maskattn.training.train import train
from hf_maskattn.training.transfer_set import distillation_arguments, load_teacher
from tests.training.teachers import build_tokenizer, save_pair_teacher, save_teacher
from tests.training.toy_recipe import load_toy, with_a_number, with_several_labels


@pytest.fixture
def read(tmp_path, cache):
    """Writes and loads a toy recipe with a teacher."""
    return lambda teacher, *overrides, **groups: load_toy(tmp_path, *overrides, teacher={"model": str(teacher)}, **groups)


def assembled(recipe):
    return assemble(recipe, distillation_arguments(recipe, recipe.teacher))


def teacher_of(recipe):
    return load_teacher(recipe.teacher, recipe.model.task)


def test_permuted_labels_are_matched(read, pet_teacher):
    recipe = read(pet_teacher)
    ready = assembled(recipe)
    assert ready.data.labels == ["cat", "dog"]
    text = ready.data.raw["train"][0]["text"]
    expected = teacher_of(recipe).compute_logits([text], torch.device("cpu"))[0][0].tolist()
    assert ready.trainer.train_dataset[0]["teacher_logits"] == pytest.approx(expected[::-1], abs=1e-4)


def test_further_texts_have_a_teacher_and_no_label(read, pet_teacher, tmp_path, caplog):
    recipe = read(pet_teacher, "data.augmentation=2", "data.unlabeled_file=" + str(tmp_path / "more.jsonl"))
    held_out = json.loads((tmp_path / "test.jsonl").read_text().splitlines()[0])["text"]
    more = [{"text": f"  {held_out.upper()} ", "label": "lion"}, {"text": "a b a b", "label": None}]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    with caplog.at_level(logging.INFO):
        ready = assembled(recipe)
    rows = ready.trainer.train_dataset
    further = rows.select(range(40, len(rows)))
    assert len(further) > 20
    assert set(further["labels"]) == {-100}
    tokenizer = ready.data.tokenizer
    assert tokenizer.decode(further[0]["input_ids"]) == "a b a b"
    assert any(tokenizer.mask_token_id in row for row in further["input_ids"])
    assert all(math.isfinite(value) for row in rows["teacher_logits"] for value in row)
    assert "The model is distilled on 1 unlabeled texts. 1 others were removed, because they are also in" in caplog.text
    assert "augmented texts." in caplog.text
    texts = {tuple(row) for row in further["input_ids"]}
    for split in ("validation", "test"):
        assert not texts & {tuple(row) for row in ready.data.splits[split]["input_ids"]}


def test_run_stores_and_prints_what_the_teacher_does(read, pet_teacher, tmp_path):
    report = train(read(pet_teacher, "training.num_train_epochs=1"))
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert written == report.metrics
    for split in ("validation", "test"):
        assert {"accuracy", "macro_f1", "teacher_accuracy", "teacher_macro_f1", "agreement"} <= set(written[split])
        assert 0 <= written[split]["agreement"] <= 1
    stored = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["teacher"]
    assert stored["model"] == pet_teacher
    assert stored["temperature"] == 3
    card = (tmp_path / "run" / "README.md").read_text()
    assert " Distilled from pets0." in card
    assert "| test, teacher |" in card
    assert "teacher_accuracy" not in card


@pytest.mark.parametrize("strategy", [None, "random"])
def test_scores_of_the_teacher_are_those_of_its_own_predictions(read, pet_teacher, tmp_path, strategy, monkeypatch):
    settings = () if strategy is None else (f"training.train_sampling_strategy={strategy}",)
    recipe = read(pet_teacher, "data.test_file=" + str(tmp_path / "train.jsonl"), "data.max_length=3", *settings)
    ready = assembled(recipe)
    if strategy is not None:  # as in one of several processes
        monkeypatch.setattr(ready.trainer, "_get_eval_sampler", lambda dataset: None)
    scores = ready.transfer_set.score(ready.trainer, "test", ready.evaluation)
    raw = ready.data.raw["test"]
    logits = teacher_of(recipe).compute_logits(raw["text"], torch.device("cpu"))[0]
    predicted = [["dog", "cat"][row.argmax()] for row in logits]
    assert scores["teacher_accuracy"] == pytest.approx(sum(map(str.__eq__, predicted, raw["label"])) / 40)
    ready.trainer.model.eval()
    by_student = []
    for row in ready.data.splits["test"]:
        output = ready.trainer.model(torch.tensor([row["input_ids"]]))
        by_student.append(["cat", "dog"][output.logits.argmax()])
    assert scores["agreement"] == pytest.approx(sum(map(str.__eq__, predicted, by_student)) / 40)


@pytest.mark.slow
def test_several_labels(read, tmp_path):
    teacher = save_teacher(tmp_path / "teacher", ["long", "dog", "cat"], problem_type="multi_label_classification")
    recipe = read(
        teacher, "data.augmentation=1", model={"problem_type": "multi_label_classification"}, make=with_several_labels
    )
    report = train(recipe)
    assert {"teacher_micro_f1", "agreement"} <= set(report.metrics["test"])


@pytest.mark.slow
def test_regression_has_no_agreement(read, tmp_path):
    teacher = save_teacher(tmp_path / "teacher", None, problem_type="regression")
    recipe = read(teacher, "data.augmentation=1", model={"problem_type": "regression"}, make=with_a_number)
    report = train(recipe)
    assert math.isfinite(report.metrics["train"]["loss"])
    assert "teacher_mse" in report.metrics["test"]
    assert "agreement" not in report.metrics["test"]


@pytest.mark.parametrize("kind", ["word", "char"])
def test_tags_of_another_tokenizer(read, tmp_path, kind):
    teacher = save_teacher(tmp_path / "teacher", ["B-SOUND", "O", "I-SOUND"], "token-classification")
    recipe = read(teacher, f"data.tokenizer={kind}", "data.vocab_size=60", task="token-classification")
    ready = assembled(recipe)
    labels = ready.data.labels
    tokens = ready.data.raw["train"][0]["tokens"]
    starts = [sum(len(word) + 1 for word in tokens[:i]) for i in range(len(tokens))]
    logits = teacher_of(recipe).compute_logits([Words(" ".join(tokens), tuple(starts))], torch.device("cpu"))[0]
    logits = logits[:, [["B-SOUND", "O", "I-SOUND"].index(label) for label in labels]]
    row = ready.trainer.train_dataset[0]
    positions = starts if kind == "char" else range(len(tokens))
    found = torch.tensor(row["teacher_logits"])
    torch.testing.assert_close(found[list(positions)], torch.from_numpy(logits), atol=1e-4, rtol=1e-4)
    others = [token for token in range(len(found)) if token not in positions]
    assert found[others].isnan().all()
    scores = ready.transfer_set.score(ready.trainer, "test", ready.evaluation)
    assert 0 <= scores["agreement"] <= 1
    assert {"teacher_f1", "teacher_accuracy"} <= set(scores)


def test_targets_are_those_of_the_teacher(read, tmp_path):
    recipe = read(save_pair_teacher(tmp_path / "teacher"), task="text2text-generation")
    ready = assembled(recipe)
    sources = ready.data.raw["train"]["source"][:3]
    generated = teacher_of(recipe).generate(sources, torch.device("cpu"))[0]
    originals = ready.data.raw["train"]["target"][:3]
    expected = [text if text.strip() else old for text, old in zip(generated, originals, strict=True)]
    tokenizer = ready.data.tokenizer
    limit = recipe.data.max_target_length
    for row, text in zip(ready.trainer.train_dataset.select(range(3)), expected, strict=True):
        assert row["labels"] == tokenizer(text_target=text, truncation=True, max_length=limit)["input_ids"]
    scores = ready.transfer_set.score(ready.trainer, "test", ready.evaluation)
    assert {"teacher_exact_match", "teacher_cer", "agreement"} == set(scores)


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (["dog", "wolf"], {}, r"must have the labels of the data \(cat, dog\), got .* with dog, wolf"),
        (["LABEL_0", "LABEL_1"], {}, "default names"),
        (["dog", "cat"], {"problem_type": "multi_label_classification"}, "trained for multi_label_classification"),
    ],
)
def test_other_teachers_raise_before_training(read, tmp_path, labels, settings, message):
    recipe = read(save_teacher(tmp_path / "teacher", labels, **settings))
    with pytest.raises(ValueError, match=message):
        assembled(recipe)


def test_crf_teacher_needs_kl(read, tmp_path, tiny_config):
    labels = ["B-SOUND", "I-SOUND", "O"]
    tokenizer = build_tokenizer()
    config = tiny_config(vocab_size=len(tokenizer), id2label=dict(enumerate(labels)), use_crf=True)
    MaskAttnForTokenClassification(config).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    recipe = read(str(tmp_path / "teacher"), task="token-classification")
    ready = assembled(recipe)
    assert [labels[index] for index in ready.transfer_set.order] == ready.data.labels
    with pytest.raises(ValueError, match=r"teacher\.loss must be kl for a teacher with a CRF, got mse with .*teacher"):
        assembled(read(str(tmp_path / "teacher"), "teacher.loss=mse", task="token-classification"))


def test_decoder_without_padding_id_is_a_teacher(read, tmp_path):
    tokenizer = build_tokenizer()
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 64}
    config = GPT2Config(vocab_size=len(tokenizer), id2label={0: "cat", 1: "dog"}, **sizes)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    logits = assembled(read(str(tmp_path / "teacher"))).trainer.train_dataset["teacher_logits"]
    assert torch.tensor(logits[:]).isfinite().all()


def test_missing_teacher_raises_before_data_is_read(read, tmp_path):
    recipe = read(tmp_path / "nowhere", "data.train_file=nowhere.jsonl")
    with pytest.raises(OSError, match=r"teacher.model=.*nowhere: "):
        assembled(recipe)
