import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_maskattn import MaskAttnConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rnn_type", "rnn"),
        ("attention_query", "first"),
        ("attention_implementation", "flash"),
        ("hidden_size", "256"),
        ("hidden_dropout_prob", "0.1"),
        ("bidirectional", "yes"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value):
    with pytest.raises(StrictDataclassError, match=field):
        MaskAttnConfig(**{field: value})
    with pytest.raises(StrictDataclassError, match=field):
        setattr(MaskAttnConfig(), field, value)


def test_a_configuration_survives_saving(tmp_path):
    config = MaskAttnConfig(rnn_type="gru", num_labels=5, hidden_dropout_prob=0, classifier_dropout=0.5)
    config.save_pretrained(tmp_path)
    assert MaskAttnConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_attentions_are_not_gathered_by_trainer():
    assert set(MaskAttnConfig().keys_to_ignore_at_inference) >= {"attentions", "hidden_states"}
