"""PEFT: LoRA on recurrent weights, attention projections and embeddings, and fully trained modules next to it."""

from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from tests.heads import build_head
from tests.other_versions import ACTIVATION_CHECKPOINTING
from tests.quiet_training import QUIET
from tests.tolerances import GRADIENT, MANY_STEPS, OUTPUT

peft = pytest.importorskip("peft")

# PEFT 0.21 reads a property that transformers 5.24 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

RECURRENT = ["weight_ih_l0", "weight_hh_l0"]
OTHERS = ["query_projection", "key_projection", "word_embeddings"]
SCALE = 2.0  # lora_alpha / r
BATCH = {
    "input_ids": torch.arange(1, 16).view(3, 5),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [1, 1, 0, 0, 0]]),
    "labels": torch.tensor([0, 1, 2]),
}


def add_adapter(model, task=None, **changes):
    """Freezes a model and adds an adapter with random weights; those of a new adapter change nothing."""
    lora = {"target_parameters": RECURRENT, "target_modules": OTHERS, **changes}
    model = peft.get_peft_model(model, peft.LoraConfig(task_type=task, r=2, lora_alpha=4, **lora))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    return model


def compute_changes(model):
    """The change of each weight by an adapter, by the name of the weight, as a function of the trained parameters."""
    changes = {}
    for path, layer in model.base_model.model.named_modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            name = f"{path.replace('.base_layer', '')}.{getattr(layer, 'parameter_name', 'weight')}"
            if "word_embeddings" in name:
                change = (layer.lora_embedding_B["default"] @ layer.lora_embedding_A["default"]).T
            else:
                change = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            changes[name] = SCALE * change
    return changes


def copy_frozen(model):
    """Copies of the weights of the model, with their names without an adapter."""
    return {
        name.replace(".base_layer", "").replace(".original_module", ""): value.clone()
        for name, value in model.base_model.model.state_dict().items()
        if "lora_" not in name and "modules_to_save" not in name
    }


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_adapter_equals_summed_weights(tiny_config, rnn_type, implementation):
    settings = {"rnn_type": rnn_type, "attention_implementation": implementation, "attention_query": "learned"}
    settings["num_hidden_layers"] = 2
    plain = build_head("MaskAttnForSequenceClassification", tiny_config, **settings).requires_grad_(False)
    model = add_adapter(deepcopy(plain))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    changes = compute_changes(model)
    assert len(changes) == 2 * 2 * len(RECURRENT) + len(OTHERS)
    assert len(trained) == 2 * len(changes)
    summed = {name: plain.get_parameter(name) + change for name, change in changes.items()}

    outputs, expected = model(**BATCH), functional_call(plain, summed, kwargs=BATCH)
    torch.testing.assert_close(outputs.logits, expected.logits, atol=MANY_STEPS, rtol=0)
    assert (expected.logits - plain(**BATCH).logits).abs().max() > 0.05
    gradients = torch.autograd.grad(outputs.loss, trained)
    for gradient, expected_gradient in zip(gradients, torch.autograd.grad(expected.loss, trained), strict=True):
        assert expected_gradient.abs().max() > 1e-6
        torch.testing.assert_close(gradient, expected_gradient, atol=GRADIENT, rtol=0)

    with model.disable_adapter():
        assert torch.equal(model(**BATCH).logits, plain(**BATCH).logits)
    merged = model.merge_and_unload()
    assert merged.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(merged(**BATCH).logits, outputs.logits, atol=MANY_STEPS, rtol=0)


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_padding_has_no_effect_on_an_adapter(tiny_config, rnn_type):
    model = add_adapter(build_head("MaskAttnForSequenceClassification", tiny_config, rnn_type=rnn_type))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    mask = BATCH["attention_mask"].bool()
    junk = {**BATCH, "input_ids": torch.where(mask, BATCH["input_ids"], torch.randint(40, mask.shape))}
    rows = [
        {"input_ids": ids[row_mask][None], "labels": label[None]}
        for ids, row_mask, label in zip(BATCH["input_ids"], mask, BATCH["labels"], strict=True)
    ]
    batch, with_junk, single = model(**BATCH), model(**junk), [model(**row) for row in rows]
    assert torch.equal(batch.logits, with_junk.logits)
    torch.testing.assert_close(batch.logits, torch.cat([row.logits for row in single]), atol=OUTPUT, rtol=0)
    batch_gradients = torch.autograd.grad(batch.loss, trained)
    row_gradients = torch.autograd.grad(sum(row.loss for row in single) / len(rows), trained)
    torch.testing.assert_close(batch_gradients, row_gradients, atol=GRADIENT, rtol=0)


@torch.no_grad()
def logits(model):
    # Frozen, because torch uses another kernel, with other rounding, for weights that require a gradient.
    return model.eval().requires_grad_(False)(**BATCH).logits


def train(model, tokenizer, rows, folder, **arguments):
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=8,
        logging_steps=1,
        **{**QUIET, "max_steps": 30, "learning_rate": 0.05, **arguments},
    )
    trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), rows, processing_class=tokenizer)
    trainer.train()
    return trainer


@pytest.mark.slow
def test_trainer_trains_and_saves_an_adapter(saved, tokenizer, rows, tmp_path):
    plain, folder = saved(rnn_type="gru")
    lora = {"target_parameters": RECURRENT, "target_modules": OTHERS[:2]}
    model = peft.get_peft_model(
        type(plain).from_pretrained(folder), peft.LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4, **lora)
    )
    trainer = train(model, tokenizer, rows, tmp_path / "run")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in copy_frozen(model).items())

    trainer.save_model()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    names = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert {name.split(".")[-2] for name in names} == {"lora_A", "lora_B", "classifier"}
    expected = logits(model)
    assert (expected - logits(plain)).abs().max() > 0.05
    for loaded in (
        peft.PeftModel.from_pretrained(type(plain).from_pretrained(folder), tmp_path / "run"),
        peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "run"),
    ):
        assert torch.equal(logits(loaded), expected)


@pytest.mark.slow
def test_activation_checkpointing_changes_no_bit_of_an_adapter(tiny_config, tokenizer, rows, tmp_path):
    states = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = add_adapter(build_head("MaskAttnForSequenceClassification", tiny_config, num_hidden_layers=2))
        start = {name: value.clone() for name, value in model.state_dict().items()}
        train(model, tokenizer, rows, tmp_path, max_steps=2, **{ACTIVATION_CHECKPOINTING: checkpointing})
        states.append(model.state_dict())
    torch.testing.assert_close(states[1], states[0], atol=0, rtol=0)
    for name, value in states[0].items():
        assert torch.equal(value, start[name]) == ("lora_" not in name), name


@pytest.mark.parametrize(
    ("head", "task", "part"),
    [
        ("MaskAttnForSequenceClassification", "SEQ_CLS", "recurrence"),
        ("MaskAttnForTokenClassification", "TOKEN_CLS", "pooling"),
    ],
)
def test_modules_to_save_are_trained_like_the_head(tiny_config, head, task, part):
    plain = build_head(head, tiny_config, attention_query="last")
    model = add_adapter(
        deepcopy(plain), task, target_parameters=None, target_modules=["word_embeddings"], modules_to_save=[part]
    )
    batch = BATCH if "Sequence" in head else {**BATCH, "labels": BATCH["input_ids"] % 3}
    model(**batch).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    before = plain.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in copy_frozen(model).items())
    merged = model.merge_and_unload()
    changed = {name for name, value in merged.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if part in name or "classifier" in name or "word_embeddings" in name}
    torch.testing.assert_close(merged(**batch).logits, model(**batch).logits, atol=MANY_STEPS, rtol=0)


def test_adapted_embeddings_reject_unknown_tokens(tiny_config):
    model = add_adapter(build_head("MaskAttnModel", tiny_config))
    with pytest.raises(ValueError, match=r"must be in \[0, 39\], the ids of the vocabulary, got 40"):
        model(input_ids=torch.tensor([[3, 40]]))
