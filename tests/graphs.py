"""What a graph keeps for its backward pass, for tests."""

import torch


def saved_shapes(tensor):
    """Shapes of every tensor that the graph behind `tensor` keeps for the backward pass."""
    shapes, todo, seen = [], [tensor.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo.extend(parent for parent, _ in node.next_functions)
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        saved.extend(getattr(node, "saved_tensors", ()))  # of a function written in Python
        shapes.extend(tuple(value.shape) for value in saved if torch.is_tensor(value))
    return shapes
