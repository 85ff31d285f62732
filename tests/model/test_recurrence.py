import pytest
import torch

from hf_maskattn.model.recurrence import MaskedRecurrence
from tests.shared_storage import share_storage


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 7}, "hidden_size=7 is odd.*use 8, or bidirectional=False"),
        ({"num_layers": 0}, "num_hidden_layers=0 must be at least 1"),
        ({"rnn_type": "rnn"}, r"rnn_type='rnn' is unknown; choose from \['lstm', 'gru'\]"),
    ],
)
def test_bad_choices_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        MaskedRecurrence(**{"input_size": 3, "hidden_size": 8, **changes})


def test_odd_sizes_are_fine_in_one_direction():
    (states,) = MaskedRecurrence(input_size=3, hidden_size=7, bidirectional=False)(
        torch.randn(2, 4, 3), torch.ones(2, 4).bool()
    )
    assert states.shape == (2, 4, 7)


def test_dropout_acts_between_layers_only():
    x, mask = torch.randn(2, 4, 3), torch.ones(2, 4, dtype=torch.bool)
    one = MaskedRecurrence(input_size=3, hidden_size=8, dropout=0.9).train()
    assert torch.equal(one(x, mask)[-1], one(x, mask)[-1])
    two = MaskedRecurrence(input_size=3, hidden_size=8, num_layers=2, dropout=0.9).train()
    assert not torch.equal(two(x, mask)[-1], two(x, mask)[-1])


def test_parameters_keep_torch_names_and_shapes():
    layer = MaskedRecurrence(input_size=3, hidden_size=8, rnn_type="gru").layers[0]
    assert {k: tuple(v.shape) for k, v in layer.backward_rnn.named_parameters()} == {
        k: tuple(v.shape) for k, v in torch.nn.GRU(3, 4).named_parameters()
    }


def test_weights_in_one_buffer_have_storages_of_their_own_in_a_state_dict():
    layers = MaskedRecurrence(input_size=3, hidden_size=8)
    share_storage(layers)
    weights = dict(layers.named_parameters())
    assert len({weight.untyped_storage().data_ptr() for weight in weights.values()}) == 2
    saved = layers.state_dict()
    for name, value in saved.items():
        assert torch.equal(value, weights[name])
        assert value.untyped_storage().nbytes() == value.nbytes
        value.fill_(0.5)  # who writes into a state dict writes into the model
        assert (weights[name] == 0.5).all()
    assert all(value is weights[name] for name, value in layers.state_dict(keep_vars=True).items())


def test_the_last_state_of_rows_without_columns_is_zero():
    layers = MaskedRecurrence(input_size=3, hidden_size=8)
    assert torch.equal(layers.last_state(torch.empty(2, 0, 8), torch.empty(2, 0, dtype=torch.bool)), torch.zeros(2, 8))
