"""Weights that share a storage, as on an accelerator."""

import torch


def share_storage(model):
    """Make the weights of each recurrent module views of one buffer, as `flatten_parameters` does for cuDNN."""
    for module in model.modules():
        if isinstance(module, torch.nn.RNNBase):
            weights = list(module.parameters())
            buffer = torch.cat([weight.detach().flatten() for weight in weights])
            for weight, part in zip(weights, buffer.split([weight.numel() for weight in weights]), strict=True):
                weight.data = part.view(weight.shape)
