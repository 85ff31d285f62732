"""The teacher of a distillation: a fine-tuned model whose labels are matched by name, and its logits for texts and words."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.auto import find_model_class
from hf_maskattn.data.cache import fingerprint
from hf_maskattn.data.columns import MAX_LABELS_IN_ERROR
from hf_maskattn.data.tokenizers import load_tokenizer, resolve_max_length
from hf_maskattn.loading import find_weight_files, load_config, load_verified_model, weight_shapes
from hf_maskattn.tasks import TASKS, TaskName

_NUM_BEAMS = 5
_DEFAULT_NAME = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class Words:
    """A text whose words a teacher labels.

    Attributes:
        text: The text.
        starts: First character of each word.
    """

    text: str
    starts: tuple[int, ...]


class Teacher:
    """A fine-tuned model that is only read from.

    Args:
        model: The model, or the folder or Hub name that it is loaded from when it is first needed.
        tokenizer: Its tokenizer.
        config: Its configuration.
        task: What it is fine-tuned for.
        max_length: Maximum number of tokens that it reads of a text. None for the limit of its tokenizer, or 512.

    Raises:
        ValueError: If the model is not fine-tuned for the task, or its tokenizer cannot be used.
    """

    def __init__(
        self,
        model: PreTrainedModel | str,
        tokenizer: PreTrainedTokenizerBase,
        config: PreTrainedConfig,
        task: TaskName,
        *,
        max_length: int | None = None,
    ):
        self.name = model if isinstance(model, str) else type(model).__name__
        self.config, self.tokenizer, self.task = config, tokenizer, task
        self._source = model
        _check_head(config, config.architectures or ([] if isinstance(model, str) else [type(model).__name__]), task, self.name)
        _check_tokenizer(tokenizer, task, self.name)
        self.max_length = resolve_max_length(tokenizer) if max_length is None else max_length
        positions = getattr(config, "max_position_embeddings", None)
        if isinstance(positions, int) and 0 < positions < self.max_length:
            if max_length is not None:
                raise ValueError(
                    f"teacher.max_length must be at most {positions}, the number of positions of {self.name}, got {max_length} "
                    "(teacher_max_length in DistillationArguments)."
                )
            self.max_length = positions

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str,
        task: TaskName,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_length: int | None = None,
    ) -> "Teacher":
        """Load the configuration and the tokenizer of a teacher. Its weights are loaded when they are needed.

        Args:
            name_or_folder: Folder of the model, or its name on the Hub.
            task: What it has to be fine-tuned for.
            tokenizer: Its tokenizer. None loads it.
            max_length: Maximum number of tokens that it reads of a text.

        Returns:
            The teacher.

        Raises:
            ValueError: If the model is not fine-tuned for the task, or its weights are not safetensors.
            OSError: If there is no such model, or the Hub cannot be reached.
        """
        config = load_config(name_or_folder)
        _check_head(config, config.architectures or [], task, name_or_folder)
        weight_shapes(name_or_folder)
        if tokenizer is None:
            tokenizer = load_tokenizer(name_or_folder, max_length=max_length)
        return cls(name_or_folder, tokenizer, config, task, max_length=max_length)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model in float32, without dropout."""
        if not isinstance(self._source, str):
            return self._source.eval()
        model, loading = load_verified_model(
            TASKS[self.task].auto_class.load(), self._source, self.config, dtype=torch.float32, output_loading_info=True
        )
        missing = ", ".join(sorted(loading["missing_keys"]))
        if missing:
            raise ValueError(f"the teacher must have all weights, got {self.name} without {missing}. Fine-tune it first.")
        if model.config.pad_token_id is None:  # decoders find the last token by it
            model.config.pad_token_id = self.tokenizer.pad_token_id
        return model.eval()

    def release(self) -> None:
        """Free the memory of a model that was loaded here."""
        if isinstance(self._source, str):
            self.__dict__.pop("model", None)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that the logits for a text depend on: weights, configuration, tokenizer and maximum length."""
        if isinstance(self._source, str):
            weights: list[str | bytes | Path] = [*find_weight_files(self._source)]
        else:
            state = self._source.state_dict()
            weights = [part for name, value in state.items() for part in (name, _to_bytes(value))]
        return fingerprint(self.config.to_json_string(), _describe_tokenizer(self.tokenizer), str(self.max_length), *weights)

    @property
    def labels(self) -> list[str]:
        """Names of the labels by id."""
        return [self.config.id2label[number] for number in range(self.config.num_labels)]

    def label_order(self, labels: Sequence[str] | None, renamed: dict[str, str] | None = None) -> list[int]:
        """Return the position of the logit of each label of a student.

        Args:
            labels: Names of the labels of the student by id. None for regression.
            renamed: Names of labels of the student by names of the teacher, where they differ.

        Returns:
            Positions in the logits of the teacher, in the order of `labels`.

        Raises:
            ValueError: If the labels are not the same.
        """
        if labels is None:
            if self.config.num_labels != 1:
                raise ValueError(f"the teacher must have one output for regression, got {self.name} with {len(self.labels)}.")
            return [0]
        return match_labels(self.labels, labels, renamed or {}, self.name)

    @torch.inference_mode()
    def compute_logits(self, rows: Sequence[str | Words], device: torch.device) -> tuple[np.ndarray, int]:
        """Compute the logits of a batch of texts, or of texts with words.

        Returns:
            Logits `[N, num_labels]`, float32, one row for each text or each word (of its first token), NaN for words beyond the
            maximum length; and the number of truncated texts. Those of a CRF are the logarithms of its marginals.
        """
        encoded, inputs = self._encode([row.text if isinstance(row, Words) else row for row in rows], device)
        if getattr(self.model, "crf", None) is not None:
            probabilities = self.model(**inputs, output_marginals=True).marginals.float()
            output = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
        else:
            output = self.model(**inputs).logits.float()
        logits = output.cpu().numpy()  # [B, C] or [B, T, C]
        if logits.ndim == 2:
            return logits, _count_truncated(encoded)
        words = [(number, start) for number, row in enumerate(rows) if isinstance(row, Words) for start in row.starts]
        found = np.full((len(words), logits.shape[-1]), np.nan, dtype=np.float32)
        for position, (number, start) in enumerate(words):
            token = encoded.char_to_token(number, start)
            if token is not None:
                found[position] = logits[number, token]
        return found, _count_truncated(encoded)

    @torch.inference_mode()
    def generate(self, sources: Sequence[str], device: torch.device) -> tuple[list[str], int]:
        """Generate the most probable text of a beam search with 5 beams for each source of a batch.

        Returns:
            The texts, without special tokens; and the number of truncated sources.

        Source:
            Kim and Rush (2016), section 3.2: sequence-level knowledge distillation.
        """
        encoded, inputs = self._encode(sources, device)
        ids = self.model.generate(
            **inputs, num_beams=_NUM_BEAMS, do_sample=False, num_return_sequences=1, max_new_tokens=self.max_length
        )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return texts, _count_truncated(encoded)

    def _encode(self, texts: Sequence[str], device: torch.device) -> tuple[BatchEncoding, dict[str, torch.Tensor]]:
        """Tokenize texts, and return those of the outputs that the model accepts."""
        model = self.model.to(device)
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt", verbose=False
        )
        accepted = inspect.signature(model.forward).parameters
        return encoded, {name: value.to(device) for name, value in encoded.items() if name in accepted}


def _count_truncated(encoded: BatchEncoding) -> int:
    return sum(bool(encoding.overflowing) for encoding in encoded.encodings or ())


def match_labels(names: Sequence[str], labels: Sequence[str], renamed: dict[str, str], teacher: str) -> list[int]:
    """Match the labels of a teacher with those of a student by name.

    Returns:
        For each label of the student, its position in the names of the teacher by id.

    Raises:
        ValueError: If the two sets of names differ, or `renamed` has a name that does not exist.
    """
    for old, new in renamed.items():
        if old not in names or new not in labels:
            raise ValueError(
                f"teacher.labels must map labels of the teacher ({_listed(names)}) to those of the data ({_listed(labels)}), "
                f"got {old}: {new}."
            )
    found = [renamed.get(name, name) for name in names]
    if len(names) == len(labels) and set(found) == set(labels):
        return [found.index(label) for label in labels]
    ways_out = (
        "Set teacher.labels={NAME OF THE TEACHER: NAME IN THE DATA, ...} where names differ (teacher_labels in "
        "DistillationArguments)"
    )
    if not set(found) & set(labels) and all(_DEFAULT_NAME.fullmatch(name) for name in names):
        ways_out = (
            "These are default names, which do not say what the teacher was trained on. Look it up, and set "
            "teacher.labels={LABEL_0: NAME IN THE DATA, ...}"
        )
    raise ValueError(
        f"the teacher must have the labels of the data ({_listed(labels)}), got {teacher} with {_listed(found)}. {ways_out}, "
        "or choose another teacher."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_LABELS_IN_ERROR])
    return f"{shown} and {len(names) - MAX_LABELS_IN_ERROR} more" if len(names) > MAX_LABELS_IN_ERROR else shown


def check_problem_type(config: PreTrainedConfig, problem_type: str | None, name: str) -> None:
    """Check that a teacher was trained with the loss of a student; None means one label per text.

    Raises:
        ValueError: If its problem type is another one. A configuration without a problem type is accepted.
    """
    expected, found = problem_type or "single_label_classification", config.problem_type
    if found is not None and found != expected:
        raise ValueError(
            f"the teacher must be trained for the problem type of the model, {expected}, got {name}, trained for {found}. Set "
            f"model.problem_type={found}, or choose another teacher."
        )


def _check_head(config: PreTrainedConfig, architectures: list[str], task: TaskName, name: str) -> None:
    """Reject a model without the head of a task, which would be initialized at random."""
    if find_model_class(TASKS[task].auto_class.load(), config).__name__ not in architectures:
        raise ValueError(
            f"the teacher must be a model for {task}, got {name}, a {', '.join(architectures) or 'model without a head'}. "
            "Fine-tune it for this task, or choose another teacher."
        )


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, task: TaskName, name: str) -> None:
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer of the teacher must have a padding token, got none in {name}. Set its pad_token.")
    if task == "token-classification" and not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of the teacher must be a fast one to align words with tokens, got {type(tokenizer).__name__} in "
            f"{name}. Convert it, or choose another teacher."
        )


def _to_bytes(value: torch.Tensor) -> bytes:
    return value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else str(value.item()).encode()


def _describe_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the content of a tokenizer, without the truncation and padding of its last call."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return f"{type(tokenizer).__name__} {sorted(tokenizer.get_vocab().items())}"
    backend = type(backend).from_str(backend.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend.to_str()
