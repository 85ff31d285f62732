"""One model of each kind, sharded over the processes of a launch, and the same model whole in each of them."""

import copy
from types import SimpleNamespace

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DistributedConfig,
)

from hf_maskattn import MaskAttnConfig, RNNSearchConfig
from tests.tolerances import MANY_STEPS

ENCODER = {"maskattn.recurrence.layers.0", "maskattn.recurrence.layers.1", "maskattn.pooling"}
ENCODER_DECODER = {"rnnsearch.encoder.recurrence.layers.0", "rnnsearch.encoder.recurrence.layers.1", "rnnsearch.decoder"}
CASES = {
    "sequence-lstm": (AutoModelForSequenceClassification, {"rnn_type": "lstm", "attention_query": "last"}, ENCODER),
    "sequence-gru": (AutoModelForSequenceClassification, {"rnn_type": "gru"}, ENCODER),
    "token-lstm": (AutoModelForTokenClassification, {"rnn_type": "lstm"}, ENCODER),
    "token-gru-checkpointed": (AutoModelForTokenClassification, {"rnn_type": "gru"}, ENCODER),
    "mlm-lstm-checkpointed": (AutoModelForMaskedLM, {"rnn_type": "lstm"}, ENCODER),
    "translation-gru": (AutoModelForSeq2SeqLM, {"rnn_type": "gru", "decoder_layers": 2}, ENCODER_DECODER),
}
"""The class of each model, its configuration, and the modules that are the units of sharding."""
SHARES = (slice(0, 4), slice(4, 6))
"""Rows of each of two processes."""
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "embedding_dropout_prob": 0.0}


def shard_models(folder):
    """Trains each case for two steps, whole and sharded, and writes both ends and the sharded model that was saved."""
    for name in CASES:
        train_sharded(name, folder / name, by_torch)
    train_sharded("mlm-lstm-checkpointed", folder / "by_accelerate", by_accelerate)
    load_sharded(folder)


def build(name):
    torch.manual_seed(0)
    auto_class, changes, _ = CASES[name]
    sizes = {"vocab_size": 20, "embedding_size": 6, "hidden_size": 8, "attention_size": 8, **changes}
    if auto_class is AutoModelForSeq2SeqLM:
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        config = RNNSearchConfig(encoder_layers=2, **sizes, **ids, **NO_DROPOUT)
    else:
        config = MaskAttnConfig(num_hidden_layers=2, **sizes, **NO_DROPOUT)
    return auto_class.from_config(config)


def train_sharded(name, folder, shard):
    whole = build(name)
    sharded = copy.deepcopy(whole)
    if name.endswith("checkpointed"):
        sharded.activation_checkpointing_enable()
    sharded = shard(sharded)
    units = {path for path, module in sharded.named_modules() if isinstance(module, FSDPModule)}
    assert units >= CASES[name][2] | {""}, units
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    rank = torch.distributed.get_rank()
    ids, mask, labels = batch(name)
    count = (labels != -100).sum()
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2) for model in (whole, sharded)]
    for _ in range(2):
        of_all = whole(ids, attention_mask=mask, labels=labels, num_items_in_batch=count)
        of_all.loss.backward()
        mine = SHARES[rank]
        own = sharded(ids[mine], attention_mask=mask[mine], labels=labels[mine], num_items_in_batch=count)
        (own.loss * len(SHARES)).backward()  # as Trainer does, since the gradient is averaged over processes
        real = mask[mine].bool() if labels.dim() == 2 else slice(None)
        torch.testing.assert_close(own.logits[real], of_all.logits[mine][real], atol=MANY_STEPS, rtol=0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    weights = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        folder.mkdir(parents=True)
        save_file({key: value.clone() for key, value in whole.state_dict().items()}, folder / "expected.safetensors")
        sharded.save_pretrained(folder, state_dict=weights)


def batch(name):
    """Rows of lengths that differ between processes, one of them without a token."""
    ids, mask = torch.randint(20, (6, 7)), (torch.rand(6, 7) < 0.7).long()
    mask[0], mask[4] = 1, 0
    labels = torch.randint(2, (6,)) if name.startswith("sequence") else torch.randint(2, (6, 7)).masked_fill(mask == 0, -100)
    return ids, mask, labels


def by_torch(model):
    for module in model.modules():
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module)
    return fully_shard(model)


def by_accelerate(model):
    """As `accelerate launch --use_fsdp --fsdp_version 2` does on accelerators; an Accelerator on CPUs does not get there."""
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        mixed_precision="no",
        is_main_process=torch.distributed.get_rank() == 0,
        device=torch.device("cpu"),
        torch_device_mesh=None,
    )
    return fsdp2_prepare_model(accelerator, model)


def load_sharded(folder):
    """Loads models sharded, as transformers does by the plan of their configuration, and saves them again."""
    torch.distributed.barrier()
    model = AutoModelForTokenClassification.from_pretrained(
        folder / "token-lstm", distributed_config=DistributedConfig(fsdp_size=len(SHARES))
    )
    units = {path for path, module in model.named_modules() if isinstance(module, FSDPModule)}
    assert units == ENCODER | {"", "maskattn.word_embeddings"}, units
    model.save_pretrained(folder / "by_transformers")
    # A third layer is in no checkpoint: it is drawn once, and each process keeps its piece.
    model = AutoModelForTokenClassification.from_pretrained(
        folder / "token-lstm", num_hidden_layers=3, distributed_config=DistributedConfig(fsdp_size=len(SHARES))
    )
    model.save_pretrained(folder / "with_a_new_layer")
