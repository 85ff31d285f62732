"""Random cases for the property tests: every model class, both cells, every implementation, every dtype, any mask."""

from dataclasses import dataclass

import hypothesis.strategies as st
import torch

import hf_maskattn
from tests.conftest import SIZES
from tests.heads import HEADS, build_labels, head_class
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import OUTPUT_BY_DTYPE, assert_near


@dataclass(frozen=True)
class Case:
    """A model in training mode without dropout, and a batch for it: of an encoder-decoder, the ids are those of the source."""

    model: torch.nn.Module
    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor | None

    @property
    def dtype(self):
        return next(self.model.parameters()).dtype

    def rows(self, index):
        """Select rows: ids, mask and labels."""
        return self.ids[index], self.mask[index], None if self.labels is None else self.labels[index]


@st.composite
def cases(draw, heads=tuple(HEADS), dtypes=tuple(OUTPUT_BY_DTYPE), **fixed):
    """Draw a case; `fixed` holds fields of the configuration that are not drawn."""
    choices = {
        "rnn_type": draw(st.sampled_from(["lstm", "gru"])),
        "attention_implementation": draw(st.sampled_from(["eager", "ragged", "chunked"])),
        "attention_query": draw(st.sampled_from(["bias", "learned", "last", "mean"])),
        "num_attention_heads": draw(st.sampled_from([1, 2, 4])),
        "num_hidden_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
    }
    head, dtype = draw(st.sampled_from(heads)), draw(st.sampled_from(dtypes))
    batch_size, time = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    kind = draw(st.sampled_from(MASK_KINDS))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    config = hf_maskattn.MaskAttnConfig(
        **{**SIZES, "vocab_size": 12},
        **HEADS[head],
        **{**choices, **fixed},
    )
    model = head_class(head)(config).to(dtype).train()
    mask = ragged_mask(batch_size, time, kind)
    return Case(model, torch.randint(12, (batch_size, time)), mask, build_labels(model, mask))


def randomize_padding(values, mask):
    """Replace values at padding with random integers, which are not ids of any vocabulary."""
    return torch.where(mask, values, torch.randint(-(10**6), 10**6, values.shape))


def move_tokens(values, mask, time, kind, fill):
    """Move the tokens of each row to other columns of `time`, with `fill` elsewhere; returns the values and their mask."""
    moved = fill.clone() if torch.is_tensor(fill) else torch.full((len(values), time), fill)
    moved_mask = torch.zeros(len(values), time, dtype=torch.bool)
    for row, row_mask in enumerate(mask):
        n = int(row_mask.sum())
        columns = {
            "right": torch.arange(n),
            "left": torch.arange(time - n, time),
            "holes": torch.randperm(time)[:n].sort().values,
        }[kind]
        moved[row, columns], moved_mask[row, columns] = values[row, row_mask], True
    return moved, moved_mask


def assert_close(actual, expected, dtype, scale=1.0):
    """Compare two dictionaries of tensors within the tolerance of `dtype`, relative to values above one."""
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert_near(actual[key].double(), value.double(), OUTPUT_BY_DTYPE[dtype] * scale, key)


def assert_same_bits(actual, expected):
    """Compare two dictionaries of tensors bit by bit."""
    assert actual.keys() == expected.keys()
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)
