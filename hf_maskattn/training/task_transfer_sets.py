"""The transfer set of each task: of token classification, which aligns words, and of text-to-text generation."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_maskattn.data.tag_encoding import align_words, find_first_tokens, label_id, label_words, locate_words
from hf_maskattn.data.tag_reading import is_visible
from hf_maskattn.metrics.task_metrics import TaskEvaluation
from hf_maskattn.metrics.text import decode_texts
from hf_maskattn.model.losses import IGNORED
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.training.distillation import add_teacher_logits
from hf_maskattn.training.task_data import TaskData
from hf_maskattn.training.task_encoders import TagEncoder
from hf_maskattn.training.teacher import Teacher, Words
from hf_maskattn.training.teacher_outputs import teacher_texts
from hf_maskattn.training.transfer_set import TransferSet

logger = logging.getLogger(__name__)

Span = tuple[int, int]


class TokenTransferSet(TransferSet):
    """The rows that a tagger is distilled on. Both tokenizers align their tokens with words.

    The logits of the first token of a word in the teacher are the target of the first token of the word in the student; of all
    of its tokens if tags mark no entities.
    """

    def _match_labels(self) -> list[int]:
        if getattr(self.teacher.config, "use_crf", False) and self.settings.loss == "mse":
            raise ValueError(
                f"teacher.loss must be kl for a teacher with a CRF, got mse with {self.teacher.name}: the logarithm of a "
                "probability of 0 has no squared error."
            )
        return self.teacher.label_order(self.data.labels, self.settings.labels)

    @property
    def _marks_entities(self) -> bool:
        encoder: Any = self.data.encoder
        return isinstance(encoder, TagEncoder) and encoder.tagging.scheme != "none"

    def training_split(self, seed: int) -> Dataset:
        """Return the encoded train split with the column `teacher_logits`. See `TransferSet.training_split`."""
        dataset: Any = self.data.splits["train"]
        rows = self._rows("train")
        by_word = self._word_logits(rows)
        lengths = [len(ids) for ids in dataset["input_ids"]]
        by_token = np.full((sum(lengths), by_word.shape[-1]), np.nan, dtype=np.float32)
        first_token = first_word = 0
        for (text, spans), offsets, length in zip(rows, self._offsets(rows), lengths, strict=True):
            for token, word in enumerate(align_words(text, spans, offsets, mark_entities=self._marks_entities)):
                if word >= 0:
                    by_token[first_token + token] = by_word[first_word + word]
            first_token += length
            first_word += len(spans)
        return add_teacher_logits(dataset, by_token, np.asarray(lengths))

    def _rows(self, split: str) -> list[tuple[str, list[Span]]]:
        """Return the text of each row, and where its words are."""
        raw = self.raw[split]
        texts = list(self.data.encoder.input_texts(raw))
        words = ([word for word in row if is_visible(word)] for row in raw[self.recipe.data.tokens_column])
        return [(text, locate_words(text, row)) for text, row in zip(texts, words, strict=True)]

    def _word_logits(self, rows: Sequence[tuple[str, list[Span]]]) -> np.ndarray:
        """Return the logits of the teacher for all words of rows, in the order of the labels of the student."""
        return self._logits([Words(text, tuple(start for start, _ in spans)) for text, spans in rows])

    def _offsets(self, rows: Sequence[tuple[str, list[Span]]]) -> list[list[Span]]:
        """Return start and end of each token of the student, as the rows are encoded; special tokens are empty."""
        encoded = self.data.tokenizer(
            [text for text, _ in rows],
            truncation=True,
            max_length=self.data.encoder.max_length(self.data.tokenizer),
            return_offsets_mapping=True,
        )
        return encoded["offset_mapping"]

    def _predict(self, split: str, evaluation: TaskEvaluation) -> list[list[int]]:
        """Return the label of each word according to the teacher, at the positions of the evaluated rows."""
        rows, labels = self._rows(split), self.data.labels or []
        logits = self._word_logits(rows)
        # A word that the teacher did not read has no entity.
        tags = ["O" if np.isnan(values).any() else labels[int(values.argmax())] for values in logits]
        ids = [max(label_id(tag, labels), 0) for tag in tags]
        predicted, first = [], 0
        for (text, spans), offsets in zip(rows, self._offsets(rows), strict=True):
            tokens = find_first_tokens(text, spans, offsets)
            row = label_words(offsets, tokens, ids[first : first + len(spans)], num_labels=0, padding=(0, 0))
            predicted.append(row.labels)
            first += len(spans)
        return predicted

    def _agreement(self, by_teacher: Sequence[Any], by_student: Any, labels: Sequence[Any]) -> float:
        equal = [
            first == second
            for rows in zip(by_teacher, by_student, labels, strict=True)
            for first, second, label in zip(*rows, strict=False)  # the rows of the student are padded
            if label != IGNORED
        ]
        return float(np.mean(equal))


class SequenceTransferSet(TransferSet):
    """The rows that an encoder-decoder is distilled on: the texts that the teacher generates replace the targets.

    Source:
        Kim and Rush (2016), section 3.2: sequence-level knowledge distillation.
    """

    def _match_labels(self) -> list[int]:
        return []

    def training_split(self, seed: int) -> Dataset:
        """Return the encoded train split with the targets of the teacher. An empty text does not replace a target."""
        data, raw = self.data, self.raw["train"]
        column = self.recipe.data.target_column
        generated = self._texts("train")
        num_empty = sum(not text.strip() for text in generated)
        if num_empty:
            logger.warning(f"The teacher generated no text for {num_empty:,} rows, which keep their targets.")
        targets = [new if new.strip() else old for new, old in zip(generated, raw[column], strict=True)]
        if num_empty and isinstance(raw[column][0], list):
            targets = [[target] if isinstance(target, str) else target for target in targets]
        replaced = raw.remove_columns(column).add_column(column, targets)
        encoded: Any = data.encoder.encode("train", replaced, data.tokenizer, self.raw.locations["train"])
        return encoded

    def _texts(self, split: str) -> list[str]:
        sources = list(self.data.encoder.input_texts(self.raw[split]))
        return teacher_texts(self.teacher, sources, batch_size=self.settings.batch_size, device=self.device)

    def _predict(self, split: str, evaluation: TaskEvaluation) -> list[list[int]]:
        """Return the token ids of the texts of the teacher, for the student's tokenizer."""
        return self.data.tokenizer(text_target=self._texts(split), truncation=False, verbose=False)["input_ids"]

    def _agreement(self, by_teacher: Sequence[Any], by_student: Any, labels: Sequence[Any]) -> float:
        texts = (decode_texts(self.data.tokenizer, rows, excluded={IGNORED}) for rows in (by_teacher, by_student))
        return float(np.mean([first.strip() == second.strip() for first, second in zip(*texts, strict=True)]))


_CLASSES: dict[str, type[TransferSet]] = {
    "token-classification": TokenTransferSet,
    "text2text-generation": SequenceTransferSet,
}


def build_transfer_set(recipe: Recipe, teacher: Teacher, data: TaskData, device: torch.device) -> TransferSet:
    """Build the transfer set of the task of a recipe. See `TransferSet`."""
    return _CLASSES.get(recipe.model.task, TransferSet)(recipe, teacher, data, device)
