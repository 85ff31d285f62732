"""All encoder heads, with labels and a loss for each."""

import torch

import hf_maskattn

HEADS = {
    "MaskAttnModel": {},
    "MaskAttnForSequenceClassification": {"num_labels": 3},
    "MaskAttnForTokenClassification": {"num_labels": 3},
    "MaskAttnForTokenClassification with CRF": {"num_labels": 3, "use_crf": True},
    "MaskAttnForMaskedLM": {},
    "MaskAttnForJointClassification": {"num_labels": 3, "sequence_label_names": ["even", "odd"]},
}


def head_class(name):
    """Return the model class of a head."""
    return getattr(hf_maskattn, name.split()[0])


def build_head(name, tiny_config, **changes):
    """Build a model of the named class with a tiny configuration, in training mode."""
    return head_class(name)(tiny_config(**HEADS[name], **changes)).train()


def build_labels(model, mask):
    """Draw labels for a batch with this mask, -100 at padding; None for the base model."""
    name = type(model).__name__
    if name == "MaskAttnForSequenceClassification":
        return torch.randint(3, (len(mask),))
    if name in ("MaskAttnForTokenClassification", "MaskAttnForJointClassification"):
        return torch.randint(3, mask.shape).masked_fill(~mask, -100)
    if name == "MaskAttnForMaskedLM":
        return torch.randint(model.config.vocab_size, mask.shape).masked_fill(~mask, -100)
    return None


def label_arguments(model, mask, labels):
    """Return the labels as arguments of `forward`. Where a row needs one too, it is whether the number of tokens is odd."""
    if labels is None:
        return {}
    if type(model).__name__ != "MaskAttnForJointClassification":
        return {"labels": labels}
    lengths = mask.long().sum(dim=1)
    return {"labels": labels, "sequence_labels": torch.where(lengths > 0, lengths % 2, -100)}


def compute_loss(model, ids, mask, labels):
    """Compute the loss of a head; for the base model the mean square of its contexts."""
    outputs = model(ids, mask, **label_arguments(model, mask, labels))
    return outputs.pooler_output.square().mean() if labels is None else outputs.loss


def run(model, inputs, mask, labels=None):
    """Run forward and backward; returns outputs, 0 at padding, and gradients, by name."""
    model.zero_grad()
    options = label_arguments(model, mask, labels)
    name = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
    outputs = model(**{name: inputs}, attention_mask=mask, output_attentions=True, output_hidden_states=True, **options)
    results = {}
    for key, value in outputs.items():
        for index, tensor in enumerate(value if isinstance(value, tuple) else (value,)):
            if tensor.dim() == 3:
                tensor = torch.where(mask[..., None], tensor, 0)
            results[f"{key}.{index}"] = tensor
    loss = (
        results["loss.0"]
        if "loss.0" in results
        else results["last_hidden_state.0"].square().sum() + results["pooler_output.0"].sum()
    )
    loss.backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    return {key: value.detach() for key, value in results.items()}, gradients
