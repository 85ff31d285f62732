"""The autograd graph of a tensor."""

import torch


def collect_nodes(tensor):
    """Collect the nodes of the autograd graph of a tensor."""
    nodes, pending = set(), [tensor.grad_fn]
    while pending:
        node = pending.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            pending.extend(parent for parent, _ in node.next_functions)
    return nodes


def saved_tensors(node):
    """Return the tensors that a node saves for its backward pass."""
    saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    saved.extend(getattr(node, "saved_tensors", ()))  # of a Python function
    return [value for value in saved if torch.is_tensor(value)]
