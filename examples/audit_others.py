"""Audits models that others wrote, as tiny random configurations, and one of ours.

python examples/audit_others.py
"""

import torch
import transformers as hf
from rich.console import Console
from rich.table import Table

from hf_maskattn import MaskAttnConfig, MaskAttnForSequenceClassification, audit

SIZES = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
# Eager attention returns its weights.
SIZES["attn_implementation"] = "eager"
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GPT2 = hf.GPT2Config(**SIZES, n_embd=32, n_layer=2, n_head=2)
T5 = hf.T5Config(**SIZES, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
RWKV = hf.RwkvConfig(**SIZES, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=64)
OURS = MaskAttnConfig(vocab_size=99, embedding_size=32, hidden_size=32, attention_size=32)
MODELS = {
    "BERT": (hf.BertModel, hf.BertConfig(**SIZES, **BERT)),
    "DistilBERT": (hf.DistilBertModel, hf.DistilBertConfig(**SIZES, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
    "RoBERTa": (hf.RobertaModel, hf.RobertaConfig(**SIZES, **BERT)),
    "GPT-2": (hf.GPT2LMHeadModel, GPT2),
    "GPT-2 cls": (hf.GPT2ForSequenceClassification, GPT2),
    "T5": (hf.T5ForConditionalGeneration, T5),
    "Mamba": (hf.MambaForCausalLM, hf.MambaConfig(**SIZES, hidden_size=32, num_hidden_layers=2, state_size=8)),
    "xLSTM": (hf.xLSTMForCausalLM, hf.xLSTMConfig(**SIZES, hidden_size=32, num_heads=2, num_blocks=2)),
    "RWKV": (hf.RwkvForCausalLM, RWKV),
    "ours": (MaskAttnForSequenceClassification, OURS),
}
SHORT = {"within tolerance": "within", "not applicable": "-"}


def main():
    reports = {}
    for name, (model_class, config) in MODELS.items():
        torch.manual_seed(0)
        reports[name] = audit(model_class(config), gradients=True)
    table = Table("check", *reports)
    for column in table.columns:
        column.no_wrap = True
    for check in reports["ours"].findings:
        verdicts = [report.findings[check].verdict for report in reports.values()]
        table.add_row(check, *(SHORT.get(verdict, str(verdict)) for verdict in verdicts))
    console = Console(width=160)
    console.print(table)
    for name, report in reports.items():
        for check, finding in report.findings.items():
            if finding.verdict == "LEAKS":
                console.print(f"{name}, {check}: {finding.difference:.1e} at {finding.place}", soft_wrap=True, highlight=False)
    return reports


if __name__ == "__main__":
    main()
