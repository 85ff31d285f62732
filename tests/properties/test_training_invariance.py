"""Training on the same data, padded to the longest row or to a fixed length, has the same loss curve."""

import copy

import hypothesis.strategies as st
import torch
from hypothesis import given
from torch.nn.functional import pad

from tests.heads import build_labels, compute_loss
from tests.masks import ragged_mask
from tests.properties.cases import cases
from tests.tolerances import GRADIENT_BY_DTYPE


@given(
    case=cases(dtypes=tuple(GRADIENT_BY_DTYPE), num_hidden_layers=1),  # one layer keeps an example short
    extra=st.integers(1, 16),
    side=st.sampled_from(["right", "left"]),
)
def test_loss_curve_does_not_depend_on_padding(case, extra, side):
    batches = [random_batch(case.model, case.mask.shape, side) for _ in range(15)]
    fixed = [pad_batch(*batch, case.mask.shape[1] + extra, side) for batch in batches]
    dynamic_curve, fixed_curve = train(copy.deepcopy(case.model), batches), train(case.model, fixed)
    assert dynamic_curve[0] != dynamic_curve[-1]
    torch.testing.assert_close(fixed_curve, dynamic_curve, atol=GRADIENT_BY_DTYPE[case.dtype], rtol=0)


def random_batch(model, shape, side):
    """Build a random batch, padded to its longest row."""
    mask = ragged_mask(*shape, side)
    mask = mask[:, mask.any(dim=0)]
    return torch.randint(12, mask.shape), mask, build_labels(model, mask)


def pad_batch(ids, mask, labels, time, side):
    """Pad a batch to `time` columns on one side."""
    missing = time - mask.shape[1]
    place = (0, missing) if side == "right" else (missing, 0)
    if labels is not None and labels.dim() == 2:
        labels = pad(labels, place, value=-100)
    return pad(ids, place), pad(mask, place), labels


def train(model, batches):
    """Train over batches; returns the losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    losses = []
    for batch in batches:
        loss = compute_loss(model, *batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)
