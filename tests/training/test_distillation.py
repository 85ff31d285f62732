import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy, softmax
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding, Seq2SeqTrainingArguments

import hf_maskattn
from hf_maskattn import DistillationArguments, DistillationTrainer
from hf_maskattn.data.collators import UnknownWordCollator
from hf_maskattn.training.distillation import DistillationCollator, add_teacher_logits, distillation_loss
from tests.training.teachers import build_teacher, build_tokenizer

ROWS = ["meow purr", "woof", "bark bark paw tail", "purr purr a b", "paw", "tail meow woof", "b c d", "a"]


@pytest.fixture
def student(tiny_config):
    return hf_maskattn.MaskAttnForSequenceClassification(
        tiny_config(vocab_size=70, id2label={0: "cat", 1: "dog"}, problem_type="single_label_classification")
    )


def encode(tokenizer, labels=(0, 1, 0, 1, 0, 1, 0, 1)):
    rows = Dataset.from_dict({"text": ROWS, "labels": list(labels)})
    return rows.map(lambda batch: tokenizer(batch["text"]), batched=True)


@pytest.fixture
def build(student, tmp_path, cache):
    """Builds a DistillationTrainer."""

    def build(rows=None, teacher=None, processing_class=None, **changes):
        tokenizer = build_tokenizer()
        settings = {"per_device_train_batch_size": 4, "max_steps": 1, "save_strategy": "no", "disable_tqdm": True, **changes}
        return DistillationTrainer(
            student,
            DistillationArguments(str(tmp_path / "run"), use_cpu=True, report_to="none", **settings),
            teacher_model=build_teacher(["dog", "cat"])[0] if teacher is None else teacher,
            teacher_processing_class=processing_class,
            train_dataset=encode(tokenizer) if rows is None else rows,
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )

    return build


def test_kl_is_the_divergence_at_a_temperature():
    z, v = torch.randn(5, 3), torch.randn(5, 3)
    p, q = softmax(v / 2, -1), softmax(z / 2, -1)
    expected = 4 * (p * (p.log() - q.log())).sum(-1)
    torch.testing.assert_close(distillation_loss(z, v, "kl", temperature=2), expected)
    assert distillation_loss(v, v, "kl", temperature=2).abs().max() < 1e-6


def test_kl_of_several_labels_is_that_of_each_label():
    z, v = torch.randn(5, 3), torch.randn(5, 3)
    pairs = [torch.stack([values, torch.zeros_like(values)], -1) for values in (z, v)]  # sigmoid(x) = softmax([x, 0])
    expected = torch.stack([distillation_loss(pairs[0][:, i], pairs[1][:, i], "kl", temperature=2) for i in range(3)]).mean(0)
    torch.testing.assert_close(distillation_loss(z, v, "kl", "multi_label_classification", 2), expected)


def test_mse_ignores_the_temperature():
    z, v = torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(distillation_loss(z, v, "mse", temperature=2), ((z - v) ** 2).mean(-1))


def test_gradient_of_kl_hardly_depends_on_the_temperature():
    v, norms = torch.randn(64, 3), {}
    for temperature in (10, 20):
        z = torch.zeros(64, 3, requires_grad=True)
        distillation_loss(z, v, "kl", temperature=temperature).sum().backward()
        norms[temperature] = z.grad.norm().item()
    assert norms[10] == pytest.approx(norms[20], rel=0.1)


def test_trainer_matches_labels_by_name(build):
    trainer = build()
    teacher, tokenizer = build_teacher(["dog", "cat"])
    expected = teacher(**tokenizer(ROWS, padding=True, return_tensors="pt")).logits.detach()[:, [1, 0]]
    torch.testing.assert_close(torch.tensor(trainer.train_dataset["teacher_logits"]), expected)


def test_loss_depends_on_the_teacher(build, student):
    first, second = build(alpha=1.0), build(teacher=build_teacher(["dog", "cat"], seed=1)[0], alpha=1.0)
    batches = [next(iter(trainer.get_train_dataloader())) for trainer in (first, second)]
    assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
    student.train()
    losses = [trainer.compute_loss(student, batch) for trainer, batch in zip((first, second), batches, strict=True)]
    assert losses[0] != losses[1]
    logits = student(batches[0]["input_ids"], batches[0]["attention_mask"]).logits
    expected = distillation_loss(logits, batches[0]["teacher_logits"], "kl", temperature=3).mean()
    torch.testing.assert_close(losses[0], expected)


@pytest.mark.parametrize("labels", [[0, -100, -100, 1, -100, -100, -100, 1], [-100] * 8])
def test_rows_without_labels_have_the_loss_of_the_teacher_alone(build, student, labels):
    trainer = build(encode(build_tokenizer(), labels), alpha=0.25, per_device_train_batch_size=8)
    batch = next(iter(trainer.get_train_dataloader()))
    student.train()
    loss = trainer.compute_loss(student, batch)
    logits, known = student(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"] != -100
    by_labels = cross_entropy(logits[known], batch["labels"][known]) if known.any() else 0
    by_teacher = distillation_loss(logits, batch["teacher_logits"], "kl", temperature=3).mean()
    torch.testing.assert_close(loss, 0.25 * by_teacher + 0.75 * by_labels)


def test_accumulated_batches_give_the_gradient_of_one_batch(build, student):
    labels = [0, -100, -100, 1, -100, 0, -100, 1]
    gradients = []
    for size in (8, 2):
        trainer = build(
            encode(build_tokenizer(), labels),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            train_sampling_strategy="sequential",
        )
        batches, counts = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 8 // size, torch.device("cpu"))
        assert counts.tolist() == [8, 4]
        student.zero_grad()
        trainer.current_gradient_accumulation_steps = 8 // size
        for batch in batches:
            trainer.training_step(student, batch, counts)
        gradients.append(student.classifier.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_evaluation_uses_labels_alone(build, student):
    trainer = build(alpha=1.0)
    found = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    batch = trainer.data_collator(
        [{key: row[key] for key in ("input_ids", "attention_mask", "labels")} for row in trainer.train_dataset]
    )
    assert found == pytest.approx(student.eval()(**batch).loss.item(), rel=1e-5)


def test_trainer_trains(build, student):
    before = student.classifier.weight.clone()
    assert math.isfinite(build(learning_rate=0.1).train().training_loss)
    assert not torch.equal(student.classifier.weight, before)


def test_computed_logits_need_no_teacher(build):
    rows = add_teacher_logits(encode(build_tokenizer()), np.zeros((8, 2), dtype=np.float32))
    assert build(rows, teacher="nowhere").train_dataset["teacher_logits"][0] == [0, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.3]] * 8, r"must have the shape of the logits of the model, \(4, 2\), got \(4, 1\)"),
        ([[0.3, 1.0, 2.0]] * 8, r"must have the shape of the logits of the model, \(4, 2\), got \(4, 3\)"),
        ([0.3] * 8, r"must be a list of finite numbers, .* got 0\.3"),
        ([None] * 8, r"must be a list of finite numbers, .* got None"),
        ([[0.3, -math.inf]] * 8, r"must be a list of finite numbers, .* got \[0\.3\S*, -inf\]"),
        ([[0.3, 1.0], [0.3]] * 4, r"must have a number for each label in every row, got rows of the shapes \(1,\), \(2,\)"),
    ],
)
def test_unusable_logits_raise(build, values, message):
    rows = encode(build_tokenizer()).add_column("teacher_logits", values)
    with pytest.raises(ValueError, match=f"teacher_logits {message}"):
        build(rows, teacher="nowhere", train_sampling_strategy="sequential").train()


def test_given_tokenizer_needs_none_in_the_folder(build, tmp_path):
    build_teacher(["dog", "cat"])[0].save_pretrained(tmp_path / "teacher")
    loaded = build(teacher=str(tmp_path / "teacher"), processing_class=build_tokenizer()).train_dataset["teacher_logits"]
    torch.testing.assert_close(torch.tensor(loaded[:]), torch.tensor(build().train_dataset["teacher_logits"][:]))


def test_regression_ignores_missing_numbers(tiny_config, tmp_path, cache):
    student = hf_maskattn.MaskAttnForSequenceClassification(tiny_config(vocab_size=70, num_labels=1, problem_type="regression"))
    tokenizer = build_tokenizer()
    trainer = DistillationTrainer(
        student,
        DistillationArguments(str(tmp_path), distillation_loss="mse", use_cpu=True, report_to="none"),
        teacher_model=build_teacher(None)[0],
        train_dataset=encode(tokenizer, [0.5, math.nan, -100.0, *[math.nan] * 5]),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    student.train()
    logits, known = student(batch["input_ids"], batch["attention_mask"]).logits[:, 0], ~batch["labels"].isnan()
    expected = 0.5 * ((logits - batch["teacher_logits"][:, 0]) ** 2).mean()
    expected = expected + 0.5 * ((logits - batch["labels"])[known] ** 2).mean()
    torch.testing.assert_close(trainer.compute_loss(student, batch), expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_collator_pads_logits_of_tokens_as_tokens(side):
    tokenizer = build_tokenizer()
    tokenizer.padding_side = side
    collator = DistillationCollator(DataCollatorForTokenClassification(tokenizer))
    rows = [
        {"input_ids": [5] * n, "attention_mask": [1] * n, "labels": [0] * n, "teacher_logits": [[n, i] for i in range(n)]}
        for n in (1, 3)
    ]
    batch = collator(rows)
    is_padding = batch["attention_mask"] == 0
    assert torch.equal(batch["teacher_logits"].isnan().all(-1), is_padding)
    assert batch["teacher_logits"][~is_padding].tolist() == [[1, 0], [3, 0], [3, 1], [3, 2]]


def test_logits_of_another_number_of_tokens_raise():
    collator = DistillationCollator(DataCollatorForTokenClassification(build_tokenizer()))
    row = {"input_ids": [5, 5], "attention_mask": [1, 1], "labels": [0, 0], "teacher_logits": [[0.0, 1.0]]}
    message = r"teacher_logits must have numbers for each token of a row, got \[1\] for rows of \[2\]"
    with pytest.raises(ValueError, match=message):
        collator([row])


def test_unknown_word_dropout_stays_in_training():
    tokenizer = build_tokenizer()
    inner = UnknownWordCollator(
        DataCollatorWithPadding(tokenizer), tokenizer, counts=np.ones(len(tokenizer), dtype=int), alpha=1e9, seed=0
    )
    collator = DistillationCollator(inner)
    collator.set_epoch(3)
    rows = [{**tokenizer("meow purr"), "teacher_logits": [0.0, 1.0]}]
    dropped, kept = collator(rows), collator.for_evaluation()(rows)
    assert (dropped["input_ids"] == tokenizer.unk_token_id).any()
    assert kept["input_ids"][0].tolist() == rows[0]["input_ids"]
    assert dropped["teacher_logits"].tolist() == kept["teacher_logits"].tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature must be greater than 0, got 0"),
        ({"alpha": 0}, r"alpha must be in \(0, 1\], got 0"),
        ({"distillation_loss": "l1"}, "distillation_loss must be one of kl, mse, got 'l1'"),
        ({"text_column": "sentence"}, "must have the column text_column='sentence'.* got text, labels"),
        ({"teacher_labels": {"wolf": "dog"}}, "must map labels of the teacher .*got wolf: dog"),
    ],
)
def test_invalid_arguments_raise(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_other_arguments_raise(student, tmp_path):
    arguments = Seq2SeqTrainingArguments(tmp_path, use_cpu=True, report_to="none")
    with pytest.raises(TypeError, match="args must be DistillationArguments, got Seq2SeqTrainingArguments"):
        DistillationTrainer(student, arguments, train_dataset=Dataset.from_dict({"text": ROWS}))


def test_tokenizer_of_another_vocabulary_raises(build):
    teacher = build_teacher(["dog", "cat"])[0]
    teacher.config.vocab_size = 99
    with pytest.raises(ValueError, match=r"teacher_processing_class must be the tokenizer of the teacher, .* 99 tokens"):
        build(teacher=teacher)


def test_crf_student_has_the_loss_of_its_sequences(tiny_config, tmp_path):
    model = hf_maskattn.MaskAttnForTokenClassification(tiny_config(id2label={0: "O", 1: "B-X", 2: "I-X"}, use_crf=True))
    rows = {"input_ids": [[3, 4, 5], [6, 7]], "attention_mask": [[1] * 3, [1] * 2], "labels": [[0, 1, 2], [-100, 0]]}
    targets = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    arguments = DistillationArguments(str(tmp_path), alpha=0.3, temperature=1.0, use_cpu=True, report_to="none")
    collator = DataCollatorForTokenClassification(build_tokenizer())
    dataset = add_teacher_logits(Dataset.from_dict(rows), targets, np.array([3, 2]))
    trainer = DistillationTrainer(model, arguments, train_dataset=dataset, data_collator=collator)
    batch = trainer.data_collator([*dataset])
    loss = trainer.compute_loss(model, dict(batch))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    emissions = model(**inputs).logits[batch["attention_mask"].bool()]
    divergence = distillation_loss(emissions, torch.from_numpy(targets), "kl").mean()
    torch.testing.assert_close(loss, 0.3 * divergence + 0.7 * model(**inputs, labels=batch["labels"]).loss)
    loss.backward()
    assert model.crf.transitions.grad.abs().sum() > 0
