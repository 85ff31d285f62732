import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, T5Config, T5EncoderModel, T5Model

from hf_maskattn import audit

T5 = {"vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
BERT = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
GPT2 = {"vocab_size": 30, "n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}


class T5WithoutMask(T5EncoderModel):
    """A model that depends on distances between tokens, and on padding."""

    def forward(self, input_ids=None, attention_mask=None):
        return super().forward(input_ids, attention_mask=torch.ones_like(input_ids))


def test_relative_positions_are_checked_by_padding_ids():
    findings = audit(T5Model(T5Config(**T5))).findings
    assert findings["holes"].verdict == "exact"
    reason = (
        "outputs depend on token positions (relative_attention_num_buckets), so only the ids at padding positions were changed"
    )
    assert findings["holes"].reason == reason
    assert findings["extra padding left"].reason is None  # distances do not change
    assert findings["extra padding left"].verdict in ("exact", "within tolerance")


def test_relative_positions_do_not_hide_leaks():
    findings = audit(T5WithoutMask(T5Config(**T5))).findings
    assert (findings["holes"].verdict, findings["holes"].reason) == ("LEAKS", None)


def test_left_padding_without_positions_is_for_decoders():
    encoder, decoder = (audit(model).findings for model in (BertModel(BertConfig(**BERT)), GPT2LMHeadModel(GPT2Config(**GPT2))))
    check = "left, no position ids"
    assert (encoder[check].verdict, encoder[check].reason) == ("not applicable", "applies to decoders only")
    assert decoder[check].verdict == "LEAKS"
    assert decoder["extra padding left"].verdict in ("exact", "within tolerance")
