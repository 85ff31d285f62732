"""Explanations of random scores, for pages."""

import torch

from hf_maskattn.inspection.explanations import Explanation

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "\" onmouseover='alert(3)' autofocus onfocus=alert(4) x=\"",
    "</title></style><svg onload=alert(5)>&amp;",
    "{{ 7 * 7 }}{% raw %}javascript:alert(6)",
]


def find_offsets(text, tokens):
    """Return start and end of each token in a text."""
    offsets, position = [], 0
    for token in tokens:
        start = text.index(token, position)
        position = start + len(token)
        offsets.append((start, position))
    return offsets


def build_explanation(text, tokens=None, labels=("x", "y"), task="text-classification", **changes):
    """Build an explanation of the words of a text, or of other tokens."""
    tokens = text.split() if tokens is None else tokens
    scores = changes.pop("scores", None)
    if scores is None:
        scores = torch.randn(len(tokens), len(labels), generator=torch.Generator().manual_seed(len(tokens)))
    base = torch.linspace(-1, 1, len(labels))
    values = {
        "method": "contributions",
        "unit": "token",
        "offsets": changes.pop("offsets", None) or find_offsets(text, tokens),
        "scores": scores,
        "base": base,
        "logits": scores.nansum(dim=0) + base,
    }
    values |= changes
    values.setdefault("predicted", [int(values["logits"].argmax())] if len(labels) else [])
    return Explanation(text=text, task=task, tokens=[*tokens], labels=[*labels], **values)
