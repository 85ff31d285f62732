import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_maskattn import RNNSearchConfig

SIZES = [
    *("vocab_size", "embedding_size", "hidden_size", "encoder_layers"),
    *("decoder_layers", "attention_size", "num_attention_heads"),
]
PROBABILITIES = ["hidden_dropout_prob", "embedding_dropout_prob", "attention_dropout_prob"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rnn_type", "rnn"),
        ("attention_query", "next"),
        ("attention_implementation", "flash"),
        ("output_layer", "softmax"),
        ("hidden_size", "256"),
        ("input_feeding", "yes"),
        ("max_target_length", 2.5),
    ],
)
def test_config_rejects_wrong_value(field, value):
    with pytest.raises(StrictDataclassError, match=field):
        RNNSearchConfig(**{field: value})
    with pytest.raises(StrictDataclassError, match=field):
        setattr(RNNSearchConfig(), field, value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_vocab_size": 7}, "vocab_size=30000 and source_vocab_size=7: set share_embeddings=False"),
        ({"source_vocab_size": 0, "share_embeddings": False}, "source_vocab_size must be at least 1, got 0"),
        ({"hidden_size": 129}, "hidden_size must be even where layers are bidirectional, got 129. Each"),
        ({"num_hidden_layers": 0}, "encoder_layers must be at least 1, got 0."),
        (
            {"num_attention_heads": 3},
            "num_attention_heads must divide attention_size=256, got 3. Set another",
        ),
        ({"num_attention_heads": 8, "hidden_size": 12}, "must divide hidden_size=12, got 8. Set another number of heads, or"),
        ({"pad_token_id": 30000}, "pad_token_id=30000 is outside of the vocabulary, which has ids 0 to 29999"),
        ({"pad_token_id": -1}, "pad_token_id=-1 is outside of the vocabulary"),
        ({"output_size": 7}, "output_size=256 as embedding_size, got 7: leave it None, or set tie_word_embeddings=False"),
    ],
)
def test_config_rejects_conflicting_fields(changes, message):
    with pytest.raises(StrictDataclassError) as error:
        RNNSearchConfig(**changes)
    assert message in str(error.value.__cause__)


def test_config_saves_and_loads(tmp_path):
    config = RNNSearchConfig(rnn_type="lstm", share_embeddings=False, source_vocab_size=7, decoder_start_token_id=None)
    config.save_pretrained(tmp_path)
    assert RNNSearchConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_config_has_transformers_field_names():
    config = RNNSearchConfig(encoder_layers=3)
    assert config.num_hidden_layers == 3
    assert config.is_encoder_decoder
    # generate() reads the size of the target vocabulary from here.
    assert config.get_text_config().vocab_size == config.get_text_config(decoder=True).vocab_size == config.vocab_size


def test_trainer_does_not_gather_states_and_attentions():
    assert set(RNNSearchConfig().keys_to_ignore_at_inference) == {
        "cache",
        "past_key_values",
        "encoder_last_hidden_state",
        "encoder_hidden_states",
        "encoder_attentions",
        "decoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
    }


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("field", SIZES)
def test_config_rejects_size_below_one(field, value):
    for build in (lambda: RNNSearchConfig(**{field: value}), lambda: setattr(RNNSearchConfig(), field, value)):
        with pytest.raises(
            StrictDataclassError,
            match=rf"{field} must be at least 1, got {value}\.",
        ):
            build()


@pytest.mark.parametrize("value", [-0.1, 1.5, 2, float("nan")])
@pytest.mark.parametrize("field", PROBABILITIES)
def test_config_rejects_invalid_probability(field, value):
    for build in (lambda: RNNSearchConfig(**{field: value}), lambda: setattr(RNNSearchConfig(), field, value)):
        with pytest.raises(StrictDataclassError, match=rf"{field} must be in \[0, 1\], got {value}\."):
            build()


@pytest.mark.parametrize("field", PROBABILITIES)
def test_config_accepts_probabilities_0_and_1(field):
    assert getattr(RNNSearchConfig(**{field: 0}), field) == 0
    assert getattr(RNNSearchConfig(**{field: 1.0}), field) == 1
