"""Small models of every kind that can be exported to ONNX."""

import torch

import hf_maskattn
from hf_maskattn.onnx.export import write_onnx

DEFAULTS = {
    "rnn_type": "lstm",
    "bidirectional": True,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "attention_query": "bias",
}
CASES = {
    "lstm": {
        "head": "MaskAttnForSequenceClassification",
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "attention_query": "last",
    },
    "gru": {"head": "MaskAttnForTokenClassification", "rnn_type": "gru", "attention_query": "mean"},
    "unidirectional-lstm": {
        "head": "MaskAttnForTokenClassification",
        "hidden_size": 64,  # wide enough that an exporter would not fold the reordering of weights
        "bidirectional": False,
        "num_attention_heads": 2,
        "attention_query": "learned",
    },
    "crf": {"head": "MaskAttnForTokenClassification", "id2label": {0: "O", 1: "B-X", 2: "I-X"}, "use_crf": True},
    "joint": {
        "head": "MaskAttnForJointClassification",
        "sequence_label_names": ["even", "odd"],
        "rnn_type": "gru",
        "num_attention_heads": 2,
    },
    "unidirectional-gru": {
        "head": "MaskAttnForSequenceClassification",
        "rnn_type": "gru",
        "bidirectional": False,
        "num_attention_heads": 2,
    },
}
"""What differs from `DEFAULTS`, and the head."""


def export_case(name, path, **settings_of_export):
    """Export the model of a case with random weights, and return it."""
    settings = {**DEFAULTS, **CASES[name]}
    head = getattr(hf_maskattn, settings.pop("head"))
    sizes = {"vocab_size": 12, "embedding_size": 6, "hidden_size": 8, "attention_size": 8, "num_labels": 3}
    if "id2label" in settings:
        del sizes["num_labels"]
    config = hf_maskattn.MaskAttnConfig(**{**sizes, **settings})
    torch.manual_seed(0)
    model = head(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=2 * config.hidden_size**-0.5)
    write_onnx(model, path, **settings_of_export)
    return model
