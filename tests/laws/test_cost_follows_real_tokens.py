"""Law: on a CPU, pads before and behind all tokens are not computed, and long pads within a batch hardly."""

import pytest
import torch

from hf_maskattn.model import real_tokens, recurrent_kernel
from tests.heads import HEADS, build_head
from tests.masks import ragged_mask


@pytest.fixture
def work(monkeypatch):
    """Runs a model and lists how many tokens its kernels, embeddings and linear maps are given, call by call."""

    def run(model, ids, mask, **requests):
        seen = []
        with monkeypatch.context() as patch:
            for name, kernel in dict(recurrent_kernel.KERNELS).items():

                def spy(x, *args, kernel=kernel):
                    seen.append(x.shape[:-1].numel())
                    return kernel(x, *args)

                patch.setitem(recurrent_kernel.KERNELS, name, spy)
            hooks = [
                module.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:-1].numel()))
                for module in model.modules()
                if isinstance(module, (torch.nn.Embedding, torch.nn.Linear))
            ]
            model(ids, mask, **requests)
            for hook in hooks:
                hook.remove()
        return seen

    return run


@pytest.mark.parametrize("requests", [{}, {"output_hidden_states": True, "output_attentions": True}], ids=["", "all outputs"])
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("head", HEADS)
def test_padding_all_rows_further_adds_no_work(tiny_config, work, head, implementation, requests):
    model = build_head(head, tiny_config, attention_implementation=implementation)
    mask = ragged_mask(4, 9, "right")
    mask[0] = True
    ids = torch.randint(40, mask.shape)
    expected = work(model, ids, mask, **requests)
    for padding in ((0, 503), (503, 0), (250, 250)):
        assert work(model, *(torch.nn.functional.pad(tensor, padding) for tensor in (ids, mask)), **requests) == expected


@pytest.mark.parametrize("head", HEADS)
def test_one_long_row_among_short_ones_adds_little_work(tiny_config, work, monkeypatch, head):
    monkeypatch.setattr(real_tokens, "_LITTLE_WORK", 0)
    model = build_head(head, tiny_config, attention_implementation="chunked")
    lengths = torch.tensor([500, *[5] * 15])
    mask = torch.arange(500) < lengths[:, None]
    assert max(work(model, torch.randint(40, mask.shape), mask)) <= lengths.sum()
