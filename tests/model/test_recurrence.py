import pytest
import torch

from hf_maskattn.model.recurrence import MaskedRecurrence
from tests.shared_storage import share_storage


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 7}, "hidden_size must be even with bidirectional=True, .* got 7. Use 8, or bidirectional=False"),
        ({"num_layers": 0}, "num_hidden_layers must be at least 1, got 0."),
        ({"rnn_type": "rnn"}, r"rnn_type must be one of \['lstm', 'gru'\], got 'rnn'."),
    ],
)
def test_recurrence_rejects_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        MaskedRecurrence(**{"input_size": 3, "hidden_size": 8, **changes})


def test_unidirectional_recurrence_accepts_odd_size():
    (states,) = MaskedRecurrence(input_size=3, hidden_size=7, bidirectional=False)(
        torch.randn(2, 4, 3), torch.ones(2, 4).bool()
    )
    assert states.shape == (2, 4, 7)


def test_dropout_between_layers_only():
    x, mask = torch.randn(2, 4, 3), torch.ones(2, 4, dtype=torch.bool)
    one = MaskedRecurrence(input_size=3, hidden_size=8, dropout=0.9).train()
    assert torch.equal(one(x, mask)[-1], one(x, mask)[-1])
    two = MaskedRecurrence(input_size=3, hidden_size=8, num_layers=2, dropout=0.9).train()
    assert not torch.equal(two(x, mask)[-1], two(x, mask)[-1])


def test_parameters_have_torch_names_and_shapes():
    layer = MaskedRecurrence(input_size=3, hidden_size=8, rnn_type="gru").layers[0]
    assert {k: tuple(v.shape) for k, v in layer.backward_rnn.named_parameters()} == {
        k: tuple(v.shape) for k, v in torch.nn.GRU(3, 4).named_parameters()
    }


def test_state_dict_separates_shared_storage():
    layers = MaskedRecurrence(input_size=3, hidden_size=8)
    share_storage(layers)
    weights = dict(layers.named_parameters())
    assert len({weight.untyped_storage().data_ptr() for weight in weights.values()}) == 2
    saved = layers.state_dict()
    for name, value in saved.items():
        assert torch.equal(value, weights[name])
        assert value.untyped_storage().nbytes() == value.nbytes
        value.fill_(0.5)  # a write into the state dict is a write into the model
        assert (weights[name] == 0.5).all()
    assert all(value is weights[name] for name, value in layers.state_dict(keep_vars=True).items())


def test_last_state_without_columns_is_zero():
    layers = MaskedRecurrence(input_size=3, hidden_size=8)
    assert torch.equal(layers.last_state(torch.empty(2, 0, 8), torch.empty(2, 0, dtype=torch.bool)), torch.zeros(2, 8))
