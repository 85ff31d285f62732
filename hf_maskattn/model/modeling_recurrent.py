"""Base class of all models: weight initialization, saving, and validation of token inputs."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .attention import IMPLEMENTATIONS, AdditiveAttention
from .masking import TokenColumns, apply_to_tokens, build_token_mask, check_values, is_host_readable
from .remote_code import CODE_VERSION, move_code_above_checkpoint


class RecurrentPreTrainedModel(PreTrainedModel):
    """A model of recurrent layers and additive attention in which padding has no effect.

    Attributes:
        all_auto_classes: The class for each Auto class, for all models of the family: the `auto_map` of a saved `config.json`.
    """

    supports_gradient_checkpointing = True
    all_auto_classes: dict[str, str]

    def _check_and_adjust_attn_implementation(self, attn_implementation, *args, **kwargs):
        """Reject an implementation of the additive attention under transformers' name for its own attention."""
        if attn_implementation in IMPLEMENTATIONS and attn_implementation != "eager":
            raise ValueError(
                f'attn_implementation must be "eager", got "{attn_implementation}". The additive attention of this model has a '
                f'field of its own: set attention_implementation="{attn_implementation}" in the configuration.'
            )
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters(recurse=False):
                gates = parameter.shape[0] // module.hidden_size
                draw = draw_recurrent_weight if parameter.dim() == 2 else build_recurrent_bias
                init.copy_(parameter, shard_like(draw(name, parameter, gates), parameter))
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, AdditiveAttention):
            init.normal_(module.energy, std=module.energy.shape[1] ** -0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save as every transformers model does, with an `auto_map` of all classes and the version of the code."""
        self.config.auto_map = dict(self.all_auto_classes)
        self.config.code_version = CODE_VERSION
        # FSDP2 replaces the class of a model with one of torch, whose name and code would be saved.
        current_class = type(self)
        self.__class__ = next(kind for kind in current_class.__mro__ if not kind.__module__.startswith("torch."))
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.__class__ = current_class
        # Trainer passes it at every save; before transformers 5.23, only the main process saves, and passes `state_dict`.
        if kwargs.get("is_main_process", "state_dict" in kwargs):
            move_code_above_checkpoint(save_directory, self.all_auto_classes)

    def _token_mask(self, input_ids, inputs_embeds, attention_mask, lengths=None) -> torch.Tensor:
        """Build the mask `[B, T]`, bool, of inputs given in any of the accepted forms."""
        inputs = self._select_inputs(input_ids, inputs_embeds)
        return build_token_mask(inputs.shape[:2], inputs.device, attention_mask, lengths)

    def _select_inputs(self, input_ids, inputs_embeds, prefix="") -> torch.Tensor:
        """Select ids `[B, T]` or embeddings `[B, T, embedding_size]`, whichever is given; `prefix` begins their names."""
        if (input_ids is None) == (inputs_embeds is None):
            given = "both" if input_ids is not None else "neither"
            raise ValueError(f"Exactly one of `{prefix}input_ids` and `{prefix}inputs_embeds` must be given, got {given}.")
        inputs, dimensions = (input_ids, 2) if inputs_embeds is None else (inputs_embeds, 3)
        if inputs.dim() != dimensions:
            name = "input_ids" if inputs_embeds is None else "inputs_embeds"
            expected = "[batch, time]" if dimensions == 2 else "[batch, time, embedding_size]"
            raise ValueError(f"`{prefix}{name}` must have shape {expected}, got {list(inputs.shape)}.")
        return inputs

    def _embed(
        self, input_ids, inputs_embeds, mask, columns: TokenColumns, embeddings: nn.Embedding, prefix=""
    ) -> torch.Tensor:
        """Embed the columns that have a token, whatever stands at padding: `[B, L, embedding_size]`.

        Args:
            input_ids: `[B, T]`, or None.
            inputs_embeds: `[B, T, embedding_size]`, if there are no ids.
            mask: `[B, L]`, bool, True = token; None means that there is no padding.
            columns: The L columns of T that have a token.
            embeddings: The embeddings of the ids.
            prefix: What the names of the inputs begin with.
        """
        width = self.config.embedding_size
        if input_ids is not None:
            ids = columns.crop(input_ids).long()
            ids = ids if mask is None else ids.masked_fill(~mask, 0)
            if not is_host_readable(ids) or embeddings.weight.device.type != "cpu":
                _check_ids(ids, len(embeddings.weight), prefix)
            try:
                return apply_to_tokens(lambda ids: self.embedding_dropout(embeddings(ids)), ids, mask, width)
            except IndexError:  # on a CPU the embedding itself checks every id
                _check_ids(ids, len(embeddings.weight), prefix)
                raise
        if inputs_embeds.shape[-1] != width:
            raise ValueError(f"`{prefix}inputs_embeds` must have width embedding_size={width}, got {inputs_embeds.shape[-1]}.")
        return self.embedding_dropout(columns.crop(inputs_embeds))


def draw_recurrent_weight(name: str, parameter: torch.Tensor, gates: int) -> torch.Tensor:
    """Draw the stacked gate matrices of one of torch's recurrent modules.

    They are drawn as a new tensor: a slice written in place would overwrite loaded weights.

    Args:
        name: torch's name of the parameter: `weight_ih_*` is drawn from Xavier's uniform distribution, `weight_hh_*` is
            orthogonal, each gate on its own.
        parameter: The parameter, `[gates * H, in]`, for shape, dtype and device.
        gates: Number of gates stacked in it.

    Source:
        Glorot and Bengio 2010; Saxe et al. 2014 (arXiv:1312.6120).
    """
    draw = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
    blocks = torch.empty(parameter.shape, dtype=torch.float32, device=parameter.device).chunk(gates)
    return torch.cat([draw(block) for block in blocks]).to(parameter.dtype)


def build_recurrent_bias(name: str, parameter: torch.Tensor, gates: int) -> torch.Tensor:
    """Build the bias of one of torch's recurrent modules: 0, and 1 for the forget gate of an LSTM (`bias_ih_*`).

    Args:
        name: torch's name of the parameter.
        parameter: The parameter, `[gates * H]`, for shape, dtype and device.
        gates: Number of gates stacked in it.

    Source:
        Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network Architectures", for the forget gate.
    """
    is_forget_gate = torch.arange(gates, device=parameter.device) == 1  # torch's order: input, forget, cell, output
    if gates != 4 or not name.startswith("bias_ih"):
        is_forget_gate = torch.zeros_like(is_forget_gate)
    return is_forget_gate.to(parameter.dtype).repeat_interleave(parameter.shape[0] // gates)


def shard_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Shard a tensor as a sharded parameter, each process keeping its shard of what the first one drew.

    Args:
        value: The complete tensor.
        parameter: The parameter; for one that is not sharded `value` is returned as it is.
    """
    if type(parameter) is nn.Parameter:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements) if isinstance(parameter, DTensor) else value


def _check_ids(ids: torch.Tensor, vocab_size: int, prefix: str) -> None:
    is_valid = (ids >= 0) & (ids < vocab_size)
    check_values(
        is_valid,
        lambda: (
            f"`{prefix}input_ids` must be in [0, {vocab_size - 1}], the ids of the vocabulary, got {ids[~is_valid][0].item()}. "
            "Use the tokenizer that was saved with the model, or resize_token_embeddings."
        ),
        f"{prefix}input_ids holds a token id outside of 0..{vocab_size - 1}",
    )
