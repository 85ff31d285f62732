import pytest
import torch
from torch.nn import functional
from transformers import Trainer, TrainingArguments, pipeline

from hf_maskattn import MaskAttnForJointClassification, MaskAttnForSequenceClassification, MaskAttnForTokenClassification
from hf_maskattn.data.tokenizers import train_tokenizer
from tests.heads import HEADS
from tests.quiet_training import QUIET

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0], [3, 4, 5, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
TAGS = torch.tensor([[1, -100, 2, 0], [0, 2, 1, 1], [-100, -100, -100, -100]])  # two of them at padding
LABELS = torch.tensor([1, -100, 0])
HEAD = "MaskAttnForJointClassification"


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return MaskAttnForJointClassification(tiny_config(**HEADS[HEAD], tag_scheme="IOB2")).eval()


def test_loss_is_joint_log_probability(model):
    outputs = model(IDS, MASK)
    is_labeled = (TAGS != -100) & MASK.bool()
    tag_loss = functional.cross_entropy(outputs.logits[is_labeled], TAGS[is_labeled], reduction="sum")
    label_loss = functional.cross_entropy(outputs.sequence_logits[[0, 2]], LABELS[[0, 2]], reduction="sum")
    both = model(IDS, MASK, labels=TAGS, sequence_labels=LABELS)
    torch.testing.assert_close(both.loss, (tag_loss + label_loss) / 5)
    one_item = model(IDS, MASK, labels=TAGS, sequence_labels=LABELS, num_items_in_batch=1).loss
    torch.testing.assert_close(one_item, tag_loss + label_loss)
    torch.testing.assert_close(model(IDS, MASK, labels=TAGS).loss, tag_loss / 5)
    torch.testing.assert_close(model(IDS, MASK, sequence_labels=LABELS).loss, label_loss / 2)
    assert outputs.loss is None


def test_loss_without_labels_is_zero(model):
    none = {"labels": torch.full_like(IDS, -100), "sequence_labels": torch.full_like(LABELS, -100)}
    assert model(IDS, MASK, **none).loss == 0
    assert model(IDS, MASK, **none, num_items_in_batch=torch.tensor(0)).loss == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2]), r"`sequence_labels` must be in \[0, 1\], the classes of the model, .* got 2."),
        (torch.tensor([0, 1]), r"`sequence_labels` must have shape \[3\], got \[2\]."),
    ],
)
def test_sequence_labels_are_checked(model, labels, message):
    with pytest.raises(ValueError, match=message):
        model(IDS, MASK, sequence_labels=labels)


def test_names_of_sequence_labels_are_required(tiny_config):
    with pytest.raises(ValueError, match=r"sequence_label_names must be a list of the labels of sequences, got None\."):
        MaskAttnForJointClassification(tiny_config(num_labels=3))


@pytest.fixture
def saved(model, tmp_path):
    model.config.id2label = {0: "O", 1: "B-DAY", 2: "I-DAY"}
    model.save_pretrained(tmp_path)
    tokenizer = train_tokenizer(["ab ba"], kind="char", vocab_size=20, max_length=16)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_each_half_loads_as_a_model(model, saved, caplog):
    expected = model(IDS, MASK)
    tagger = MaskAttnForTokenClassification.from_pretrained(saved).eval()
    classifier = MaskAttnForSequenceClassification.from_pretrained(saved).eval()
    assert torch.equal(tagger(IDS, MASK).logits, expected.logits)
    assert torch.equal(classifier(IDS, MASK).logits, expected.sequence_logits)
    assert not caplog.messages  # no word about the weights of the other half
    assert classifier.config.id2label == {0: "even", 1: "odd"}
    assert classifier.config.sequence_label_names is classifier.config.tag_scheme is None


@pytest.mark.parametrize("half", [MaskAttnForTokenClassification, MaskAttnForSequenceClassification])
def test_half_saves_and_completes_joint_model(model, saved, tmp_path, half):
    part = half.from_pretrained(saved)
    part.save_pretrained(tmp_path / "half")
    names = {"sequence_label_names": ["even", "odd"], "id2label": model.config.id2label, "label2id": model.config.label2id}
    joint, info = MaskAttnForJointClassification.from_pretrained(tmp_path / "half", **names, output_loading_info=True)
    missing = "classifier" if half is MaskAttnForTokenClassification else "token_classifier"
    assert info["missing_keys"] == {f"{missing}.weight", f"{missing}.bias"}
    assert {name for name, weight in joint.named_parameters() if not torch.equal(weight, model.get_parameter(name))} <= {
        f"{missing}.weight"
    }


def test_pipelines_read_each_half(saved):
    labels = pipeline("text-classification", model=str(saved))("ab ba", top_k=None)
    assert {item["label"] for item in labels} == {"even", "odd"}
    tags = pipeline("token-classification", model=str(saved), ignore_labels=[])("ab ba")
    assert {item["entity"] for item in tags} <= {"O", "B-DAY", "I-DAY"}


def rows():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 40, (8, 6), generator=generator)
    tags = torch.where(torch.rand(8, 6, generator=generator) < 0.3, -100, ids % 3)
    return [
        {"input_ids": i.tolist(), "attention_mask": [1] * 6, "labels": t.tolist(), "sequence_labels": int(i.sum() % 2)}
        for i, t in zip(ids, tags, strict=True)
    ]


def test_trainer_accumulates_exactly(model, tmp_path):
    weights = {}
    for size in (8, 2):
        trainer = Trainer(
            type(model)(model.config),
            TrainingArguments(
                tmp_path,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=8 // size,
                max_steps=2,
                learning_rate=0.1,
                max_grad_norm=0,
                optim="sgd",
                **QUIET,
            ),
            train_dataset=rows(),
        )
        trainer.model.load_state_dict(model.state_dict())
        trainer.train()
        weights[size] = trainer.model.state_dict()
    assert not torch.equal(weights[8]["classifier.weight"], model.classifier.weight)
    torch.testing.assert_close(weights[2], weights[8])


def test_trainer_predicts_both_labels(model, tmp_path):
    args = TrainingArguments(tmp_path, per_device_eval_batch_size=3, report_to="none", use_cpu=True, disable_tqdm=True)
    output = Trainer(model, args).predict(rows())
    tags, labels = output.predictions
    assert (tags.shape, labels.shape) == ((8, 6, 3), (8, 2))
    assert [value.shape for value in output.label_ids] == [(8, 6), (8,)]
