"""The graph behind a tensor, for tests."""

import torch


def nodes_behind(tensor):
    """Every node of the graph that computed a tensor."""
    nodes, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            todo.extend(parent for parent, _ in node.next_functions)
    return nodes


def saved_tensors(node):
    """Every tensor that a node keeps for its backward pass."""
    saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    saved.extend(getattr(node, "saved_tensors", ()))  # of a function written in Python
    return [value for value in saved if torch.is_tensor(value)]
