import inspect

import pytest
import torch
from accelerate import cpu_offload

from hf_maskattn import MaskAttnForMaskedLM, MaskAttnForSequenceClassification, MaskAttnForTokenClassification, MaskAttnModel
from tests.heads import HEADS, build_head, head_class
from tests.tolerances import OUTPUT

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.mark.parametrize("name", [*HEADS, "RNNSearchModel", "RNNSearchForConditionalGeneration"])
def test_forward_documents_all_arguments(name):
    model_class = head_class(name)
    assert "Args:" in model_class.__doc__
    arguments = inspect.signature(model_class.forward).parameters.keys() - {"self", "kwargs"}
    documentation = inspect.getdoc(model_class.forward)
    assert "Returns" in documentation
    assert [argument for argument in arguments if f"\n    {argument}: " not in documentation] == []


def test_print_shows_attention_options(tiny_config):
    text = repr(build_head("MaskAttnModel", tiny_config, attention_query="last", attention_implementation="ragged"))
    assert "query='last'" in text
    assert "num_heads=1, dropout=0.0, implementation='ragged'" in text


@pytest.mark.parametrize("head", HEADS)
def test_output_shapes(tiny_config, head):
    model = build_head(head, tiny_config, num_hidden_layers=2, num_attention_heads=2)
    outputs = model(IDS, MASK, output_attentions=True, output_hidden_states=True)
    assert [tuple(h.shape) for h in outputs.hidden_states] == [(2, 4, 6), (2, 4, 8), (2, 4, 8)]
    assert [tuple(a.shape) for a in outputs.attentions] == [(2, 2, 1, 4)]
    assert all(not h[MASK == 0].any() for h in outputs.hidden_states)
    if head == "MaskAttnModel":
        assert torch.equal(outputs.last_hidden_state, outputs.hidden_states[-1])
        assert outputs.pooler_output.shape == (2, 8)


@pytest.mark.parametrize("head", HEADS)
def test_input_forms_have_same_outputs(tiny_config, head):
    model = build_head(head, tiny_config)
    expected = model(IDS, MASK)[0]
    assert torch.equal(model(IDS, lengths=torch.tensor([4, 2]))[0], expected)
    embedded = model.get_input_embeddings()(IDS)
    assert torch.equal(model(inputs_embeds=embedded, attention_mask=MASK)[0], expected)
    assert torch.equal(model(IDS, MASK, token_type_ids=torch.zeros_like(IDS))[0], expected)
    as_tuple = model(IDS, MASK, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], expected)
    model.config.return_dict = False
    assert isinstance(model(IDS, MASK), tuple)


def test_config_requests_outputs(tiny_config):
    model = build_head("MaskAttnForSequenceClassification", tiny_config, output_attentions=True, output_hidden_states=True)
    outputs = model(IDS, MASK)
    assert len(outputs.attentions) == 1
    assert len(outputs.hidden_states) == 2
    assert model(IDS, MASK, output_attentions=False).attentions is None


@pytest.mark.parametrize("head", HEADS)
def test_resize_token_embeddings(tiny_config, head):
    model = build_head(head, tiny_config)
    model.resize_token_embeddings(50)
    assert model.config.vocab_size == 50
    outputs = model(torch.full((1, 2), 49))
    if head == "MaskAttnForMaskedLM":
        assert outputs.logits.shape[-1] == 50
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "must be given, got neither."),
        ({"input_ids": IDS, "inputs_embeds": torch.randn(2, 4, 6)}, "must be given, got both."),
        ({"input_ids": IDS[0]}, r"`input_ids` must have shape \[batch, time\], got \[4\]."),
        (
            {"inputs_embeds": torch.randn(2, 6)},
            r"`inputs_embeds` must have shape \[batch, time, embedding_size\], got \[2, 6\].",
        ),
        ({"inputs_embeds": torch.randn(2, 4, 5)}, "`inputs_embeds` must have width embedding_size=6, got 5."),
        (
            {"input_ids": IDS, "attention_mask": MASK[:, :3]},
            r"`attention_mask` must have shape \[2, 4\] as the inputs, got \[2, 3\].",
        ),
        ({"input_ids": IDS, "attention_mask": MASK * 2}, r"must hold only 1 \(token\) and 0 \(padding\), got 2."),
        (
            {"input_ids": IDS, "attention_mask": MASK, "lengths": torch.tensor([4, 2])},
            "`attention_mask` and `lengths` must be given, got both.",
        ),
        ({"input_ids": torch.tensor([[3, 40]])}, r"`input_ids` must be in \[0, 39\], the ids of the vocabulary, got 40."),
        ({"input_ids": torch.tensor([[3, -1]])}, r"`input_ids` must be in \[0, 39\], the ids of the vocabulary, got -1."),
    ],
)
def test_model_rejects_bad_inputs(tiny_config, inputs, message):
    for head in HEADS:
        with pytest.raises(ValueError, match=message):
            build_head(head, tiny_config)(**inputs)


@pytest.mark.parametrize(
    ("head", "labels", "message"),
    [
        (
            "MaskAttnForSequenceClassification",
            torch.tensor([0, 3]),
            r"`labels` must be in \[0, 2\], the classes of the model, .* got 3.",
        ),
        ("MaskAttnForSequenceClassification", torch.tensor([0, -1]), "got -1."),
        ("MaskAttnForSequenceClassification", torch.tensor([0, 1, 2]), r"`labels` must have shape \[2\], got \[3\]."),
        (
            "MaskAttnForSequenceClassification",
            torch.randn(2, 4),
            r"\[2, 3\] for problem_type='multi_label_classification', .* got \[2, 4\].",
        ),
        ("MaskAttnForTokenClassification", torch.full((2, 4), 3), "got 3."),
        ("MaskAttnForTokenClassification", torch.zeros(2, 3).long(), r"`labels` must have shape \[2, 4\], got \[2, 3\]."),
        ("MaskAttnForTokenClassification", torch.zeros(2, 4), "must have an integer dtype, got torch.float32."),
        ("MaskAttnForMaskedLM", torch.full((2, 4), 40), r"`labels` must be in \[0, 39\], the classes of the model, .* got 40."),
    ],
)
def test_model_rejects_bad_labels(tiny_config, head, labels, message):
    with pytest.raises(ValueError, match=message):
        build_head(head, tiny_config)(IDS, MASK, labels=labels)


@pytest.mark.parametrize(
    ("num_labels", "labels", "expected"),
    [
        (3, torch.tensor([0, 2]), "single_label_classification"),
        (3, torch.tensor([[0.0, 1, 1], [1, 0, 0]]), "multi_label_classification"),
        (1, torch.tensor([0.5, 2.0]), "regression"),
        (1, torch.tensor([[0.5], [2.0]]), "regression"),
    ],
)
def test_problem_type_is_inferred_as_in_transformers(tiny_config, num_labels, labels, expected):
    model = MaskAttnForSequenceClassification(tiny_config(num_labels=num_labels))
    logits, loss = (model(IDS, MASK, labels=labels)[k] for k in ("logits", "loss"))
    assert model.config.problem_type == expected
    loss_function = {
        "single_label_classification": torch.nn.functional.cross_entropy,
        "multi_label_classification": torch.nn.functional.binary_cross_entropy_with_logits,
        "regression": lambda a, b: torch.nn.functional.mse_loss(a.view(-1), b.view(-1)),
    }[expected]
    torch.testing.assert_close(loss, loss_function(logits, labels))
    torch.testing.assert_close(model(IDS, MASK, labels=labels, num_items_in_batch=7).loss, loss * labels.numel() / 7)


@pytest.mark.parametrize("head", [MaskAttnForTokenClassification, MaskAttnForMaskedLM])
def test_token_loss_averages_over_labels(tiny_config, head):
    model = head(tiny_config(num_labels=3))
    labels = torch.tensor([[1, -100, 2, 0], [0, -100, -100, -100]])
    outputs = model(IDS, MASK, labels=labels)
    expected = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(outputs.loss, expected)
    none = torch.full_like(IDS, -100)
    assert model(IDS, MASK, labels=none).loss == 0
    assert model(IDS, MASK, labels=none, num_items_in_batch=torch.tensor(0)).loss == 0


def test_forward_keeps_no_state(tiny_config):
    model = MaskAttnModel(tiny_config()).eval()
    first = model(IDS, MASK).pooler_output
    model(torch.randint(40, (3, 9)))
    assert torch.equal(model(IDS, MASK).pooler_output, first)
    assert not [k for k, v in model.__dict__.items() if torch.is_tensor(v)]


def test_num_time_chunks_reaches_recurrence(tiny_config):
    model = build_head("MaskAttnForTokenClassification", tiny_config)
    torch.testing.assert_close(model(IDS, MASK, num_time_chunks=2).logits, model(IDS, MASK).logits, atol=OUTPUT, rtol=0)


def test_cpu_offload(tiny_config):
    model = build_head("MaskAttnForSequenceClassification", tiny_config).eval()
    expected = model(IDS, MASK).logits
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.maskattn.recurrence.parameters())
    assert torch.equal(model(IDS, MASK).logits, expected)


def test_device_map_does_not_split_layers(tiny_config, tmp_path):
    model = build_head("MaskAttnForTokenClassification", tiny_config, num_hidden_layers=3).eval()
    expected = model(IDS, MASK).logits
    model.save_pretrained(tmp_path / "model")
    max_memory = {"cpu": int(0.7 * sum(parameter.nbytes for parameter in model.parameters()))}
    split = type(model).from_pretrained(tmp_path / "model", device_map="auto", max_memory=max_memory, offload_folder=tmp_path)
    devices = {name: device for name, device in split.hf_device_map.items() if ".layers" in name or "pooling" in name}
    assert devices.keys() == {*(f"maskattn.recurrence.layers.{layer}" for layer in range(3)), "maskattn.pooling"}
    assert set(devices.values()) == {"cpu", "disk"}
    assert torch.equal(split(IDS, MASK).logits, expected)


def test_num_segments_is_deprecated(tiny_config):
    model = build_head("MaskAttnForTokenClassification", tiny_config)
    with pytest.warns(FutureWarning, match=r"num_segments is deprecated\. Use num_time_chunks\."):
        logits = model(IDS, MASK, num_segments=2).logits
    assert torch.equal(logits, model(IDS, MASK, num_time_chunks=2).logits)
