"""On a CPU, columns of padding are not computed, and little is computed for long padding within a batch."""

import pytest
import torch

from hf_maskattn.model import masking, recurrent_kernel
from tests.heads import HEADS, build_head
from tests.masks import ragged_mask


@pytest.fixture
def count_work(monkeypatch):
    """Run a model and list the number of positions of each call of its kernels, embeddings and linear layers."""

    def run(model, ids, mask):
        counts = []
        with monkeypatch.context() as patch:
            for name, kernel in dict(recurrent_kernel.KERNELS).items():

                def spy(x, *args, kernel=kernel):
                    counts.append(x.shape[:-1].numel())
                    return kernel(x, *args)

                patch.setitem(recurrent_kernel.KERNELS, name, spy)
            hooks = [
                module.register_forward_hook(lambda module, inputs, output: counts.append(output.shape[:-1].numel()))
                for module in model.modules()
                if isinstance(module, (torch.nn.Embedding, torch.nn.Linear))
            ]
            model(ids, mask)
            for hook in hooks:
                hook.remove()
        return counts

    return run


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("head", HEADS)
def test_more_padding_adds_no_work(tiny_config, count_work, head, implementation):
    model = build_head(head, tiny_config, attention_implementation=implementation)
    mask = ragged_mask(4, 9, "right")
    mask[0] = True
    ids = torch.randint(40, mask.shape)
    expected = count_work(model, ids, mask)
    for padding in ((0, 503), (503, 0), (250, 250)):
        assert count_work(model, *(torch.nn.functional.pad(tensor, padding) for tensor in (ids, mask))) == expected


@pytest.mark.parametrize("head", HEADS)
def test_one_long_row_adds_little_work(tiny_config, count_work, monkeypatch, head):
    monkeypatch.setattr(masking, "_LITTLE_WORK", 0)
    model = build_head(head, tiny_config, attention_implementation="chunked")
    lengths = torch.tensor([500, *[5] * 15])
    mask = torch.arange(500) < lengths[:, None]
    assert max(count_work(model, torch.randint(40, mask.shape), mask)) <= lengths.sum()
