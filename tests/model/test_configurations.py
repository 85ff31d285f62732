import inspect
import json
import re

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel

from hf_maskattn import MaskAttnConfig, MaskAttnModel, RNNSearchConfig

COMMON_SIZES = ("vocab_size", "embedding_size", "hidden_size", "attention_size", "num_attention_heads")
SIZES = {
    MaskAttnConfig: (*COMMON_SIZES, "num_hidden_layers"),
    RNNSearchConfig: (*COMMON_SIZES, "encoder_layers", "decoder_layers"),
}
COMMON_PROBABILITIES = ("hidden_dropout_prob", "embedding_dropout_prob", "attention_dropout_prob")
PROBABILITIES = {MaskAttnConfig: (*COMMON_PROBABILITIES, "classifier_dropout"), RNNSearchConfig: COMMON_PROBABILITIES}
WRONG_VALUES = {"rnn_type": "rnn", "attention_implementation": "flash", "hidden_size": "256", "hidden_dropout_prob": "0.1"}


def pairs(fields):
    """Each configuration class with each of its fields or cases."""
    return [(config_class, field) for config_class, names in fields.items() for field in names]


@pytest.mark.parametrize(
    ("config_class", "field", "value"),
    [
        *((config_class, *item) for config_class in SIZES for item in WRONG_VALUES.items()),
        (MaskAttnConfig, "attention_query", "first"),
        (MaskAttnConfig, "bidirectional", "yes"),
        (MaskAttnConfig, "tag_scheme", 2),
        (RNNSearchConfig, "attention_query", "next"),
        (RNNSearchConfig, "output_layer", "softmax"),
        (RNNSearchConfig, "input_feeding", "yes"),
        (RNNSearchConfig, "max_target_length", 2.5),
    ],
)
def test_config_rejects_wrong_value(config_class, field, value):
    with pytest.raises(StrictDataclassError, match=field):
        config_class(**{field: value})
    with pytest.raises(StrictDataclassError, match=field):
        setattr(config_class(), field, value)


@pytest.mark.parametrize(
    "config",
    [
        MaskAttnConfig(rnn_type="gru", num_labels=5, hidden_dropout_prob=0, classifier_dropout=0.5, tag_scheme="BIOES"),
        RNNSearchConfig(rnn_type="lstm", share_embeddings=False, source_vocab_size=7, decoder_start_token_id=None),
    ],
    ids=lambda config: config.model_type,
)
def test_config_saves_and_loads(tmp_path, config):
    config.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_trainer_does_not_gather_states_and_attentions():
    assert set(MaskAttnConfig().keys_to_ignore_at_inference) >= {"attentions", "hidden_states"}
    encoder = {"encoder_last_hidden_state", "encoder_hidden_states", "encoder_attentions"}
    decoder = {"decoder_hidden_states", "decoder_attentions", "cross_attentions", "cache", "past_key_values"}
    assert set(RNNSearchConfig().keys_to_ignore_at_inference) == encoder | decoder


INVALID = [
    *((item, (0, -3), "{} must be at least 1, got {}.") for item in pairs(SIZES)),
    *((item, (-0.1, 1.5, 2, float("nan")), "{} must be in [0, 1], got {}.") for item in pairs(PROBABILITIES)),
    *(
        ((config_class, "initializer_range"), (0, -0.1, float("inf"), float("nan")), "{} must be positive and finite, got {}.")
        for config_class in SIZES
    ),
]


@pytest.mark.parametrize(
    ("config_class", "field", "value", "message"),
    [(*item, value, message.format(item[1], value)) for item, values, message in INVALID for value in values],
)
def test_config_rejects_number_out_of_range(config_class, field, value, message):
    for build in (lambda: config_class(**{field: value}), lambda: setattr(config_class(), field, value)):
        with pytest.raises(StrictDataclassError, match=re.escape(message)):
            build()


@pytest.mark.parametrize(("config_class", "field"), pairs(PROBABILITIES))
def test_config_accepts_probabilities_0_and_1(config_class, field):
    assert getattr(config_class(**{field: 0}), field) == 0
    assert getattr(config_class(**{field: 1.0}), field) == 1
    assert config_class(initializer_range=1).initializer_range == 1


COMMON_CONFLICTS = [
    ({"hidden_size": 129}, "hidden_size must be even for bidirectional layers, got 129. Each"),
    ({"num_attention_heads": 3, "attention_size": 128}, "num_attention_heads must divide attention_size, got 3 and 128. Set"),
    (
        {"num_attention_heads": 8, "hidden_size": 12},
        "must divide hidden_size, got 8 and 12. Set another number of heads, or",
    ),
]
CONFLICTS = {
    MaskAttnConfig: COMMON_CONFLICTS,
    RNNSearchConfig: [
        *COMMON_CONFLICTS,
        ({"source_vocab_size": 7}, "source_vocab_size must be None or 30000 as vocab_size if share_embeddings is True, got 7."),
        ({"source_vocab_size": 0, "share_embeddings": False}, "source_vocab_size must be at least 1, got 0"),
        ({"num_hidden_layers": 0}, "encoder_layers must be at least 1, got 0."),
        ({"pad_token_id": 30000}, "pad_token_id must be in the vocabulary, 0 to 29999, got 30000."),
        ({"pad_token_id": -1}, "pad_token_id must be in the vocabulary, 0 to 29999, got -1."),
        (
            {"output_size": 7},
            "output_size must be None or 256 as embedding_size if tie_word_embeddings is True, got 7. Set tie",
        ),
    ],
}


@pytest.mark.parametrize(
    ("config_class", "changes", "message"), [(config_class, *case) for config_class, case in pairs(CONFLICTS)]
)
def test_config_rejects_conflicting_fields(config_class, changes, message):
    with pytest.raises(StrictDataclassError) as error:
        config_class(**changes)
    assert message in str(error.value.__cause__)


def test_config_of_encoder_decoder_has_transformers_field_names():
    config = RNNSearchConfig(encoder_layers=3)
    assert config.num_hidden_layers == 3
    assert config.is_encoder_decoder
    # generate() reads the size of the target vocabulary from `get_text_config()`.
    assert config.get_text_config().vocab_size == config.get_text_config(decoder=True).vocab_size == config.vocab_size


def test_config_documents_all_fields():
    for config_class in SIZES:
        fields = config_class.__annotations__.keys() - {"is_encoder_decoder"}
        undocumented = [field for field in fields if f"\n    {field} (`" not in inspect.getdoc(config_class)]
        assert not undocumented


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


def test_query_of_earlier_configurations_is_learned(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "maskattn"}')
    assert MaskAttnConfig.from_pretrained(tmp_path).attention_query == "learned"
    assert MaskAttnConfig.from_pretrained(tmp_path, attention_query="mean").attention_query == "mean"
    MaskAttnConfig().save_pretrained(tmp_path)
    assert MaskAttnConfig.from_pretrained(tmp_path).attention_query == MaskAttnConfig().attention_query == "bias"


@pytest.mark.parametrize("name", ["ragged", "chunked"])
def test_attn_implementation_rejects_additive_attention(tiny_config, name):
    message = rf'attn_implementation must be "eager", got "{name}"\. .* set attention_implementation="{name}"'
    with pytest.raises(ValueError, match=message):
        MaskAttnModel(tiny_config(attn_implementation=name))
    with pytest.raises(ValueError, match=message):
        AutoModel.from_config(tiny_config(), attn_implementation=name)
    assert MaskAttnModel(tiny_config(attn_implementation="eager", attention_implementation=name)).config is not None
