import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, T5Config, T5EncoderModel, T5Model

from hf_maskattn import audit

T5 = {"vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
BERT = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
GPT2 = {"vocab_size": 30, "n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}


class T5WithoutMask(T5EncoderModel):
    """Sees distances, and pads as well."""

    def forward(self, input_ids=None, attention_mask=None):
        return super().forward(input_ids, attention_mask=torch.ones_like(input_ids))


def test_a_model_that_sees_distances_is_judged_by_what_lies_under_the_mask():
    findings = audit(T5Model(T5Config(**T5))).findings
    assert findings["holes"].verdict == "exact"
    reason = "places count in this model (relative_attention_num_buckets): judged by junk under the pads"
    assert findings["holes"].reason == reason
    assert findings["extra padding left"].reason is None  # distances stay
    assert findings["extra padding left"].verdict in ("exact", "within tolerance")


def test_seeing_distances_is_no_excuse_for_seeing_pads():
    findings = audit(T5WithoutMask(T5Config(**T5))).findings
    assert (findings["holes"].verdict, findings["holes"].reason) == ("LEAKS", None)


def test_left_padding_without_position_ids_is_asked_of_decoders_only():
    encoder, decoder = (audit(model).findings for model in (BertModel(BertConfig(**BERT)), GPT2LMHeadModel(GPT2Config(**GPT2))))
    check = "left, no position ids"
    assert (encoder[check].verdict, encoder[check].reason) == ("not applicable", "asked of decoders only")
    assert decoder[check].verdict == "LEAKS"
    assert decoder["extra padding left"].verdict in ("exact", "within tolerance")
