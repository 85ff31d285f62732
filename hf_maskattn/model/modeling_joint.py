"""The encoder with a head for sequences and one for their tokens, trained together."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_maskattn import AUTO_MAP as ENCODER_AUTO_MAP
from .configuration_maskattn import MaskAttnConfig
from .losses import IGNORED, classification_loss
from .modeling_maskattn import MaskAttnForTokenClassification

# After an interrupted download, transformers looks again only for the files that this one imports (F401).
from .attention import AttentionPooling  # noqa: F401  # isort: skip
from .attention_functions import eager_attention  # noqa: F401  # isort: skip
from .crf import LinearChainCRF  # noqa: F401  # isort: skip
from .masking import TokenColumns  # noqa: F401  # isort: skip
from .modeling_recurrent import RecurrentPreTrainedModel  # noqa: F401  # isort: skip
from .lattice import Lattice  # noqa: F401  # isort: skip
from .packing import PackedLayout  # noqa: F401  # isort: skip
from .recurrence import MaskedRecurrence  # noqa: F401  # isort: skip
from .recurrent_autograd import packed_gru  # noqa: F401  # isort: skip
from .recurrent_kernel import choose_layout  # noqa: F401  # isort: skip
from .remote_code import CODE_VERSION  # noqa: F401  # isort: skip
from .viterbi import max_product  # noqa: F401  # isort: skip

AUTO_MAP = {**ENCODER_AUTO_MAP, "AutoModelForJointClassification": "modeling_joint.MaskAttnForJointClassification"}
"""The `auto_map` of a saved `config.json`. transformers has no Auto class for both heads."""


@dataclass
class JointClassifierOutput(ModelOutput):
    """Output of a model that classifies sequences and their tokens.

    Args:
        loss: Scalar, if there are labels.
        logits: `[B, T, num_labels]`, of the labels of tokens.
        sequence_logits: `[B, num_sequence_labels]`, of the labels of sequences.
        hidden_states: As in `TokenClassifierOutput`.
        attentions: As in `TokenClassifierOutput`.
        marginals: `[B, T, num_labels]`, the probability of each label of each token, 0 at padding, if requested.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    sequence_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    marginals: torch.Tensor | None = None


class MaskAttnForJointClassification(MaskAttnForTokenClassification):
    """The encoder with a head for sequence classification and one for token classification, such as intents and slots.

    The weights have the names that they have in `MaskAttnForSequenceClassification` and `MaskAttnForTokenClassification`, which
    load a saved model, too: each of them with its half.

    Args:
        config: Configuration of the model, with `num_labels` for tokens and `sequence_label_names` for sequences.

    Raises:
        ValueError: If the configuration has no `sequence_label_names`.

    Source:
        Liu and Lane 2016, "Attention-Based Recurrent Neural Network Models for Joint Intent Detection and Slot Filling".
    """

    all_auto_classes = AUTO_MAP
    _auto_class = "AutoModelForJointClassification"
    _keys_to_ignore_on_load_unexpected: list[str] = []  # noqa: RUF012

    def __init__(self, config: MaskAttnConfig):
        super().__init__(config)
        if not config.sequence_label_names:
            raise ValueError(
                f"sequence_label_names must be a list of the labels of sequences, got {config.sequence_label_names}. Set it in "
                "the configuration, or pass it to from_pretrained."
            )
        self.classifier = nn.Linear(config.hidden_size, len(config.sequence_label_names))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sequence_labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_marginals: bool = False,
        **kwargs,
    ) -> JointClassifierOutput:
        """Classify sequences and their tokens.

        The loss is minus the log-probability of all labels of the batch, those of sequences and those of tokens, divided by the
        number of labels of tokens: every label counts the same.

        Args:
            input_ids: `[B, T]`, int, token ids.
            attention_mask: `[B, T]`, 1 = token, 0 = padding, in any arrangement; None means that there is no padding.
            token_type_ids: Accepted from BERT tokenizers; not read.
            inputs_embeds: `[B, T, embedding_size]`, instead of `input_ids`.
            lengths: `[B]`, int, number of tokens of each right-padded row, instead of `attention_mask`.
            labels: `[B, T]`, int, class of each token, -100 for a token that has none; not read at padding.
            sequence_labels: `[B]`, int, class of each row, -100 for a row that has none. Without `labels`, the loss is divided
                by the number of these.
            num_items_in_batch: Number of labels of tokens in all batches of a step, by which Trainer divides the loss. Trainer
                counts `labels` alone.
            output_marginals: Whether to return the probability of each label of each token.
            **kwargs: Passed to `MaskAttnModel`, such as `output_attentions`.

        Returns:
            `loss` if there are labels, `logits` `[B, T, num_labels]` of tokens, `sequence_logits` `[B, num_sequence_labels]`,
            and `hidden_states`, `attentions` and `marginals` if requested. With `config.use_crf`, loss and `logits` of tokens
            are those of a CRF, as in `MaskAttnForTokenClassification`.

        Raises:
            ValueError: If the inputs do not fit each other, a token id is outside of the vocabulary, a label is not a class of
                its head, or the labels have another shape.
        """
        outputs, mask, columns = self._encode(input_ids, inputs_embeds, attention_mask, lengths, **kwargs)
        emissions = self._emissions(outputs, columns.crop(mask))
        loss, logits = self._classify_tokens(emissions, mask, columns, labels, num_items_in_batch)
        sequence_logits = self.classifier(self.dropout(outputs.pooler_output))  # [B, num_sequence_labels]
        if sequence_labels is not None:
            if num_items_in_batch is None and labels is not None:
                num_items_in_batch = ((labels.to(mask.device) != IGNORED) & mask).sum()
            sequence_loss = classification_loss(sequence_logits, sequence_labels, num_items_in_batch, name="sequence_labels")
            loss = sequence_loss if loss is None else loss + sequence_loss
        return JointClassifierOutput(
            loss=loss,
            logits=logits,
            sequence_logits=sequence_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            marginals=columns.pad(self._marginals(emissions, columns.crop(mask)), 1) if output_marginals else None,
        )


__all__ = ["JointClassifierOutput", "MaskAttnForJointClassification"]
