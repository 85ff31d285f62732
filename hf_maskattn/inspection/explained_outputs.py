"""The outputs of a model that are explained: the logits of classes, of predicted tags, or of generated tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.inspection.attention_maps import readable_tokens, target_length
from hf_maskattn.inspection.explained_texts import ExplainedText
from hf_maskattn.model.masking import at_least_float32

_TOKENS_PER_BATCH = 2**14
_VALUES_PER_BATCH = 2**26
"""Values that a model returns for a batch: 256 MB in float32."""


class Scores(NamedTuple):
    """What a method computes for a text; see `Explanation`.

    Attributes:
        scores: `[units, columns]`, float, on the CPU.
        base: `[columns]`.
        logits: `[columns]`.
    """

    scores: torch.Tensor
    base: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class ExplainedOutputs:
    """The outputs of a model for a text, one for each column of an `Explanation`.

    Attributes:
        labels: Name of each column.
        ids: Index of each column among the classes, tags or token ids.
        positions: Position of the token that each column belongs to; None for a sequence classifier.
        generated_text: The output of a text-to-text model.
        decoder_input_ids: `[m]`, what its decoder reads to predict the m columns.
        tag_logits: `[T, tags]`, what a tagger returns for the n tokens of the text and padding; None if that is not known.
    """

    labels: list[str]
    ids: list[int]
    positions: list[int] | None = None
    generated_text: str | None = None
    decoder_input_ids: torch.Tensor | None = None
    tag_logits: torch.Tensor | None = None

    def select(self, logits: torch.Tensor) -> torch.Tensor:
        """Select the columns from logits `[..., classes]`, or `[..., T, classes]` of tokens."""
        return logits[..., self.ids] if self.positions is None else logits[..., self.positions, self.ids]

    def find_predicted(self, config: PreTrainedConfig, logits: torch.Tensor) -> list[int]:
        """Find the predicted columns of logits `[columns]`: classes, tags other than "O", or all generated tokens.

        If there is one class alone, it is the predicted one.
        """
        columns = [*range(len(self.ids))]
        if self.decoder_input_ids is not None:
            return columns
        if self.positions is not None:
            names = config.id2label
            return [column for column in columns if names[self.ids[column]] != "O"]
        if config.problem_type == "regression" or len(columns) < 2:
            return columns
        best = [int(logits.argmax())]
        if config.problem_type == "multi_label_classification":
            return (logits > 0).nonzero()[:, 0].tolist() or best
        return best

    def run_masks(self, model: PreTrainedModel, row: ExplainedText, masks: torch.Tensor) -> torch.Tensor:
        """Compute the outputs of a text under each of R masks, in batches of limited memory.

        Args:
            model: The model, in eval mode.
            row: The text.
            masks: `[R, n]`, bool, True = token.

        Returns:
            `[R, columns]`, float, on the CPU.
        """
        if not self.ids:  # nothing but padding was generated
            return torch.zeros(len(masks), 0)
        length = max(1, len(row))  # a tokenizer may drop every character of a text
        rows_per_batch = min(_TOKENS_PER_BATCH // length, _VALUES_PER_BATCH // self._count_values(model, length))
        outputs = []
        for part in masks.split(max(1, rows_per_batch)):
            inputs = {
                name: torch.tensor([value], device=model.device).expand(len(part), -1) for name, value in row.inputs.items()
            }
            inputs["attention_mask"] = part.long().to(model.device)
            outputs.append(self._compute(model, inputs).cpu())
        return torch.cat(outputs)

    def _compute(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.decoder_input_ids is None:
            logits = at_least_float32(model(**inputs).logits)
            return self.select(logits if self.positions is None else normalize_tags(model.config, logits))
        targets = self.decoder_input_ids.to(model.device).expand(len(inputs["input_ids"]), -1)
        logits = at_least_float32(model(**inputs, decoder_input_ids=targets, use_cache=False).logits)
        return self.select(logits.log_softmax(dim=-1))

    def _count_values(self, model: PreTrainedModel, length: int) -> int:
        """Count the values that the model returns for a row of `length` tokens."""
        if self.decoder_input_ids is not None:
            return len(self.decoder_input_ids) * model.config.vocab_size
        return model.config.num_labels * (1 if self.positions is None else length)


def normalize_tags(config: PreTrainedConfig, logits: torch.Tensor) -> torch.Tensor:
    """Normalize the logits of tags `[..., tags]` if they are the max-marginals of a CRF.

    These are scores of whole sequences, which grow with the length of a text. Normalized over the tags of a token they are the
    logarithm of the score that `predict` reports.
    """
    return logits.log_softmax(dim=-1) if getattr(config, "use_crf", False) else logits


def class_outputs(config: PreTrainedConfig, columns: Sequence[int] | None = None) -> ExplainedOutputs:
    """Return classes of a sequence classifier, by default all."""
    ids = [*range(config.num_labels)] if columns is None else [*columns]
    return ExplainedOutputs([config.id2label[id_] for id_ in ids], ids)


def tag_outputs(
    config: PreTrainedConfig, rows: Sequence[ExplainedText], logits: torch.Tensor, columns: Sequence[int] | None = None
) -> list[ExplainedOutputs]:
    """Return the predicted tags of units of each text, by default of all, from logits `[B, T, tags]` of tokens and padding."""
    names, outputs = config.id2label, []
    for row, row_logits, best in zip(rows, logits, logits.argmax(dim=-1).tolist(), strict=True):
        units = [*range(len(row.columns))] if columns is None else [*columns]
        positions = [row.columns[unit][0] for unit in units]  # a word has the tag of its first token
        tags, tokens = [best[position] for position in positions], [row.tokens[unit] for unit in units]
        labels = [f"{token.strip() or token}: {names[tag]}" for token, tag in zip(tokens, tags, strict=True)]
        outputs.append(ExplainedOutputs(labels, tags, positions, tag_logits=row_logits))
    return outputs


def generate_outputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, inputs: dict[str, torch.Tensor]
) -> ExplainedOutputs:
    """Generate the text that is explained from one source, with the `generation_config` of an encoder-decoder."""
    sequence = model.generate(**inputs, tokenizer=tokenizer, return_dict_in_generate=False)[0]
    ids = sequence[1:].tolist()
    ids = ids[: target_length(ids, model.generation_config)]
    return ExplainedOutputs(
        labels=readable_tokens(tokenizer, ids),
        ids=ids,
        positions=[*range(len(ids))],
        generated_text=tokenizer.decode(ids, skip_special_tokens=True),
        decoder_input_ids=sequence[: len(ids)].cpu(),
    )
