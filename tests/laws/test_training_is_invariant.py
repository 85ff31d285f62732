"""Law: the same data, padded to the longest row or to a fixed length, trains along the same loss curve."""

import pytest
import torch

from tests.heads import build_head, labels_for


@pytest.mark.parametrize("implementation", ["eager", "ragged"])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("head", ["MaskAttnForSequenceClassification", "MaskAttnForTokenClassification", "MaskAttnForMaskedLM"])
def test_fifty_steps(tiny_config, head, rnn_type, implementation):
    curves = []
    for fixed in (None, 24):
        torch.manual_seed(0)
        model = build_head(head, tiny_config, rnn_type=rnn_type, attention_implementation=implementation)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        data = torch.Generator().manual_seed(1)
        losses = []
        for _ in range(50):
            lengths = torch.randint(1, 10, (4,), generator=data)
            ids = torch.randint(40, (4, 10), generator=data)
            longest = int(lengths.max())
            mask = torch.arange(longest) < lengths[:, None]
            ids = ids[:, :longest]
            torch.manual_seed(int(ids.sum()))
            labels = labels_for(model, mask)
            if fixed is not None:
                missing = (0, fixed - longest)
                ids, mask = torch.nn.functional.pad(ids, missing), torch.nn.functional.pad(mask, missing)
                labels = labels if labels.dim() == 1 else torch.nn.functional.pad(labels, missing, value=-100)
            loss = model(ids, mask, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves.append(torch.tensor(losses))
    assert curves[0][0] != curves[0][-1]
    torch.testing.assert_close(curves[1], curves[0], atol=1e-5, rtol=0)
