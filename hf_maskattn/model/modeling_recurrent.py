"""What all models here share: first values, saving, and the door through which tokens come in."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .attention import IMPLEMENTATIONS, AdditiveAttention
from .checkpoint_code import carry_code_above_checkpoint
from .code_version import CODE_VERSION
from .initialization import laid_out_like, recurrent_bias, recurrent_weight
from .masking import RealColumns, real_token_mask
from .real_tokens import over_real_tokens
from .tensor_checks import check_values, host_can_read


class RecurrentPreTrainedModel(PreTrainedModel):
    """A model of recurrent layers and additive attention, in which a padded token does not exist.

    Attributes:
        all_auto_classes: The class for each Auto class, of all models of the family, as `auto_map` of a saved `config.json`.
    """

    supports_gradient_checkpointing = True
    all_auto_classes: dict[str, str]

    def _check_and_adjust_attn_implementation(self, attn_implementation, *args, **kwargs):
        """Refuse a form of the additive attention under the name that transformers has for its own attention."""
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
                value = (
                    recurrent_weight(name, parameter, gates) if parameter.dim() == 2 else recurrent_bias(name, parameter, gates)
                )
                init.copy_(parameter, laid_out_like(value, parameter))
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, AdditiveAttention):
            init.normal_(module.energy, std=module.energy.shape[1] ** -0.5)
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save as every transformers model does, with an `auto_map` of all classes and the version of the code."""
        self.config.auto_map = dict(self.all_auto_classes)
        self.config.code_version = CODE_VERSION
        # FSDP2 gives each model a class of torch's, whose name and code would be saved in place of its own.
        present = type(self)
        self.__class__ = next(kind for kind in present.__mro__ if not kind.__module__.startswith("torch."))
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.__class__ = present
        if kwargs.get("is_main_process"):  # Trainer tells it at every save
            carry_code_above_checkpoint(save_directory, self.all_auto_classes)

    def _real_tokens(self, input_ids, inputs_embeds, attention_mask, lengths=None) -> torch.Tensor:
        """Find the mask `[B, T]`, bool, of inputs given in any of the accepted ways."""
        inputs = self._inputs(input_ids, inputs_embeds)
        return real_token_mask(inputs.shape[:2], inputs.device, attention_mask, lengths)

    def _inputs(self, input_ids, inputs_embeds, prefix="") -> torch.Tensor:
        """Take ids `[B, T]` or embeddings `[B, T, embedding_size]`, whichever is given; `prefix` begins their names."""
        if (input_ids is None) == (inputs_embeds is None):
            given = "both were" if input_ids is not None else "neither was"
            raise ValueError(f"Pass either `{prefix}input_ids` or `{prefix}inputs_embeds`: {given} given.")
        inputs, dimensions = (input_ids, 2) if inputs_embeds is None else (inputs_embeds, 3)
        if inputs.dim() != dimensions:
            name = "input_ids" if inputs_embeds is None else "inputs_embeds"
            expected = "[batch, time]" if dimensions == 2 else "[batch, time, embedding_size]"
            raise ValueError(f"`{prefix}{name}` has shape {list(inputs.shape)}, expected {expected}.")
        return inputs

    def _embedded(
        self, input_ids, inputs_embeds, mask, columns: RealColumns, embeddings: nn.Embedding, prefix=""
    ) -> torch.Tensor:
        """Embed the columns that have a real token, whatever stands at pads: `[B, L, embedding_size]`.

        Args:
            input_ids: `[B, T]`, or None.
            inputs_embeds: `[B, T, embedding_size]`, if there are no ids.
            mask: `[B, L]`, bool, True = real; None means that all are.
            columns: The L columns of T that have a real token.
            embeddings: The embeddings of the ids.
            prefix: What the names of the inputs begin with.
        """
        width = self.config.embedding_size
        if input_ids is not None:
            ids = columns.cut(input_ids).long()
            ids = ids if mask is None else ids.masked_fill(~mask, 0)
            if not host_can_read(ids) or embeddings.weight.device.type != "cpu":
                _check_ids(ids, len(embeddings.weight), prefix)
            try:
                return over_real_tokens(lambda ids: self.embedding_dropout(embeddings(ids)), ids, mask, width)
            except IndexError:  # on a CPU embeddings look at every id themselves
                _check_ids(ids, len(embeddings.weight), prefix)
                raise
        if inputs_embeds.shape[-1] != width:
            raise ValueError(
                f"`{prefix}inputs_embeds` has width {inputs_embeds.shape[-1]}, the model has embedding_size={width}."
            )
        return self.embedding_dropout(columns.cut(inputs_embeds))


def _check_ids(ids: torch.Tensor, limit: int, prefix: str) -> None:
    """Refuse ids outside of 0..limit-1."""
    known = (ids >= 0) & (ids < limit)
    check_values(
        known,
        lambda: (
            f"`{prefix}input_ids` holds token id {ids[~known][0].item()}, the vocabulary has ids 0 to {limit - 1}: use "
            "the tokenizer that was saved with the model, or resize_token_embeddings."
        ),
        f"{prefix}input_ids holds a token id outside of 0..{limit - 1}",
    )
