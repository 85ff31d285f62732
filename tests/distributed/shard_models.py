"""Trains models that are sharded over the processes of a launch, and unsharded copies of them."""

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
from tests.other_versions import enable_checkpointing
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
"""Auto class, configuration, and modules that are sharded as a unit, for each model."""
ROWS = (slice(0, 4), slice(4, 6))
"""Rows of each process."""
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "embedding_dropout_prob": 0.0}


def shard_models(folder):
    """Train each case for two steps, sharded and unsharded, and save the weights of both."""
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
    unsharded = build(name)
    sharded = copy.deepcopy(unsharded)
    if name.endswith("checkpointed"):
        enable_checkpointing(sharded)
    sharded = shard(sharded)
    # With torch 2.8, gloo returns the sum where `reduce_scatter_tensor` is asked for the mean. Let FSDP divide the sum.
    for module in sharded.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
    units = {path for path, module in sharded.named_modules() if isinstance(module, FSDPModule)}
    assert units >= CASES[name][2] | {""}, units
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    rank = torch.distributed.get_rank()
    ids, mask, labels = batch(name)
    count = (labels != -100).sum()
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2) for model in (unsharded, sharded)]
    for _ in range(2):
        unsharded_output = unsharded(ids, attention_mask=mask, labels=labels, num_items_in_batch=count)
        unsharded_output.loss.backward()
        mine = ROWS[rank]
        own = sharded(ids[mine], attention_mask=mask[mine], labels=labels[mine], num_items_in_batch=count)
        (own.loss * len(ROWS)).backward()  # as Trainer does, because gradients are averaged over processes
        is_token = mask[mine].bool() if labels.dim() == 2 else slice(None)
        torch.testing.assert_close(own.logits[is_token], unsharded_output.logits[mine][is_token], atol=MANY_STEPS, rtol=0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    weights = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        folder.mkdir(parents=True)
        save_file({key: value.clone() for key, value in unsharded.state_dict().items()}, folder / "expected.safetensors")
        sharded.save_pretrained(folder, state_dict=weights)


def batch(name):
    """Draw rows with lengths that differ between processes, one of them without tokens."""
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
    """Shard as `accelerate launch --use_fsdp --fsdp_version 2` does on accelerators. accelerate does not on CPUs."""
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
    """Load models sharded by the FSDP plan of their configuration, and save them again."""
    torch.distributed.barrier()
    model = AutoModelForTokenClassification.from_pretrained(
        folder / "token-lstm", distributed_config=DistributedConfig(fsdp_size=len(ROWS))
    )
    units = {path for path, module in model.named_modules() if isinstance(module, FSDPModule)}
    assert units == ENCODER | {"", "maskattn.word_embeddings"}, units
    model.save_pretrained(folder / "by_transformers")
    # The third layer is in no checkpoint. It is initialized once, and each process keeps its shard.
    model = AutoModelForTokenClassification.from_pretrained(
        folder / "token-lstm", num_hidden_layers=3, distributed_config=DistributedConfig(fsdp_size=len(ROWS))
    )
    model.save_pretrained(folder / "with_a_new_layer")
