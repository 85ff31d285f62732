"""Random cases for the property tests of encoder-decoders: every variant, both cells, every implementation, any masks."""

import hypothesis.strategies as st
import torch

from hf_maskattn import RNNSearchConfig, RNNSearchForConditionalGeneration
from tests.conftest import SIZES
from tests.masks import MASK_KINDS, ragged_mask
from tests.properties.cases import Case

QUERIES = [("previous", False), ("current", False), ("current", True)]


@st.composite
def pairs(draw, dtypes=(torch.float64, torch.float32), implementations=("eager", "ragged", "chunked"), **fixed):
    """Draw a case; `fixed` holds fields of the configuration that are not drawn."""
    query, feeding = draw(st.sampled_from(QUERIES))
    choices = {
        "rnn_type": draw(st.sampled_from(["lstm", "gru"])),
        "attention_query": query,
        "input_feeding": feeding,
        "attention_implementation": draw(st.sampled_from(implementations)),
        "num_attention_heads": draw(st.sampled_from([1, 2])),
        "encoder_layers": draw(st.integers(1, 2)),
        "decoder_layers": draw(st.integers(1, 2)),
        "output_layer": draw(st.sampled_from(["maxout", "linear"])),
        "share_embeddings": draw(st.booleans()),
    }
    batch_size, time, target_time = (draw(st.integers(1, n)) for n in (4, 7, 6))
    kind, dtype = draw(st.sampled_from(MASK_KINDS)), draw(st.sampled_from(dtypes))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    config = RNNSearchConfig(
        **{**SIZES, "vocab_size": 12, "decoder_hidden_size": 6},
        **{**choices, **fixed},
    )
    model = RNNSearchForConditionalGeneration(config).to(dtype).train()
    mask = ragged_mask(batch_size, time, kind)
    lengths = torch.randint(0, target_time + 1, (batch_size, 1))
    lengths[0] = target_time
    labels = torch.randint(3, 12, (batch_size, target_time)).masked_fill(torch.arange(target_time) >= lengths, -100)
    return Case(model, torch.randint(12, (batch_size, time)), mask, labels)


def run_pair(model, ids, mask, labels, **changes):
    """Run forward and backward: outputs, 0 at padding, and the gradient of every parameter by name."""
    model.zero_grad()
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels, **changes}
    outputs = model(**inputs, output_attentions=True, output_hidden_states=True)
    outputs.loss.backward()
    has_label = (inputs["labels"] != -100)[..., None]
    results = {
        "loss": outputs.loss,
        "logits": torch.where(has_label, outputs.logits, 0),
        "weights": outputs.cross_attentions[0],
        **{f"state {n}": torch.where(has_label, states, 0) for n, states in enumerate(outputs.decoder_hidden_states)},
        **{f"annotations {n}": states for n, states in enumerate(outputs.encoder_hidden_states)},
    }
    gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    return {key: value.detach() for key, value in results.items()}, gradients


def generate_tokens(model, ids, mask):
    """Generate by beam search, in evaluation mode."""
    output = model.eval().generate(
        ids, attention_mask=mask, max_new_tokens=4, num_beams=2, return_dict_in_generate=True, output_logits=True
    )
    model.train()
    return output.sequences
