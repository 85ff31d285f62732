"""Code that tests and their client processes share."""

import inspect


def outputs(model):
    import torch

    with torch.no_grad():
        logits = model.eval()(torch.tensor([[5, 6, 7], [6, 5, 1]]), torch.tensor([[1, 1, 1], [1, 1, 0]]))[0]
    return logits.flatten().tolist()


OUTPUTS = inspect.getsource(outputs)
"""A function that returns the outputs of a model for a fixed batch."""
