import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel

from hf_maskattn import MaskAttnConfig, MaskAttnModel

SIZES = ["vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "attention_size", "num_attention_heads"]
PROBABILITIES = ["hidden_dropout_prob", "embedding_dropout_prob", "attention_dropout_prob", "classifier_dropout"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rnn_type", "rnn"),
        ("attention_query", "first"),
        ("attention_implementation", "flash"),
        ("hidden_size", "256"),
        ("hidden_dropout_prob", "0.1"),
        ("bidirectional", "yes"),
        ("tag_scheme", 2),
    ],
)
def test_config_rejects_wrong_value(field, value):
    with pytest.raises(StrictDataclassError, match=field):
        MaskAttnConfig(**{field: value})
    with pytest.raises(StrictDataclassError, match=field):
        setattr(MaskAttnConfig(), field, value)


def test_config_saves_and_loads(tmp_path):
    config = MaskAttnConfig(rnn_type="gru", num_labels=5, hidden_dropout_prob=0, classifier_dropout=0.5, tag_scheme="BIOES")
    config.save_pretrained(tmp_path)
    assert MaskAttnConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_trainer_does_not_gather_attentions():
    assert set(MaskAttnConfig().keys_to_ignore_at_inference) >= {"attentions", "hidden_states"}


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("field", SIZES)
def test_config_rejects_size_below_one(field, value):
    for build in (lambda: MaskAttnConfig(**{field: value}), lambda: setattr(MaskAttnConfig(), field, value)):
        with pytest.raises(StrictDataclassError, match=rf"{field} must be at least 1, got {value}\."):
            build()


@pytest.mark.parametrize("value", [-0.1, 1.5, 2, float("nan")])
@pytest.mark.parametrize("field", PROBABILITIES)
def test_config_rejects_invalid_probability(field, value):
    for build in (lambda: MaskAttnConfig(**{field: value}), lambda: setattr(MaskAttnConfig(), field, value)):
        with pytest.raises(StrictDataclassError, match=rf"{field} must be in \[0, 1\], got {value}\."):
            build()


@pytest.mark.parametrize("field", PROBABILITIES)
def test_config_accepts_probabilities_0_and_1(field):
    assert getattr(MaskAttnConfig(**{field: 0}), field) == 0
    assert getattr(MaskAttnConfig(**{field: 1.0}), field) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hidden_size": 129},
            "hidden_size must be even where layers are bidirectional, got 129. Each",
        ),
        (
            {"num_attention_heads": 3},
            "num_attention_heads must divide attention_size=128, got 3. Set another",
        ),
        ({"num_attention_heads": 8, "hidden_size": 12}, "must divide hidden_size=12, got 8. Set another number of heads, or"),
    ],
)
def test_config_rejects_indivisible_widths(changes, message):
    with pytest.raises(StrictDataclassError) as error:
        MaskAttnConfig(**changes)
    assert message in str(error.value.__cause__)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 129, "bidirectional": False},
        {"hidden_size": 100, "attention_size": 7},
        {"num_attention_heads": 4, "hidden_size": 8, "attention_size": 4},
        {"hidden_dropout_prob": 1, "classifier_dropout": None, "pad_token_id": None},
        {"pad_token_id": 99, "vocab_size": 40},
    ],
)
def test_config_loads_older_configurations(tmp_path, fields):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "maskattn", **fields}))
    config = MaskAttnConfig.from_pretrained(tmp_path)
    assert {name: getattr(config, name) for name in fields} == fields


@pytest.mark.parametrize("name", ["ragged", "chunked"])
def test_attn_implementation_rejects_additive_attention(tiny_config, name):
    message = rf'attn_implementation must be "eager", got "{name}"\. .* set attention_implementation="{name}"'
    with pytest.raises(ValueError, match=message):
        MaskAttnModel(tiny_config(attn_implementation=name))
    with pytest.raises(ValueError, match=message):
        AutoModel.from_config(tiny_config(), attn_implementation=name)
    assert MaskAttnModel(tiny_config(attn_implementation="eager", attention_implementation=name)).config is not None
