import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_maskattn import RNNSearchConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
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
)
def test_config_rejects_conflicting_fields(changes, message):
    with pytest.raises(StrictDataclassError) as error:
        RNNSearchConfig(**changes)
    assert message in str(error.value.__cause__)


def test_config_has_transformers_field_names():
    config = RNNSearchConfig(encoder_layers=3)
    assert config.num_hidden_layers == 3
    assert config.is_encoder_decoder
    # generate() reads the size of the target vocabulary from `get_text_config()`.
    assert config.get_text_config().vocab_size == config.get_text_config(decoder=True).vocab_size == config.vocab_size
