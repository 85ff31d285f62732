"""Explain predictions: a score for each token or word of a text, by the method that is chosen."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.auto import FAMILIES
from hf_maskattn.data.files import has_unpaired_surrogate
from hf_maskattn.data.tag_decoding import find_entities, split_words
from hf_maskattn.data.tokenizers import BATCHES_PER_WINDOW, batch_by_length, load_tokenizer
from hf_maskattn.inspection.attributions import check_captum, compute_attributions
from hf_maskattn.inspection.audit import eval_mode
from hf_maskattn.inspection.audit_forward import read_argument_names
from hf_maskattn.inspection.contributions import Explained, compute_attention, compute_contributions
from hf_maskattn.inspection.explained_outputs import ExplainedOutputs
from hf_maskattn.inspection.explained_texts import ExplainedText, Span, encode_texts, stack_texts
from hf_maskattn.inspection.explanations import METHODS, Explanation, Method, Unit, check_label
from hf_maskattn.inspection.removal import check_removal, compute_removal
from hf_maskattn.loading import load_config, load_verified_model
from hf_maskattn.model.modeling_maskattn import MaskAttnForSequenceClassification
from hf_maskattn.tasks import TASKS, task_of

CLASSIFIER_TASKS = ("text-classification", "token-classification")
"""Tasks whose outputs are classes or tags."""

_JOINT = "joint-classification"
_TASKS = (*CLASSIFIER_TASKS, "text2text-generation")
_GRADIENT_METHODS = ("integrated_gradients", "gradient_x_input")


def explain(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Sequence[str],
    method: Method | None = None,
    *,
    unit: Unit = "token",
    spans: Sequence[Sequence[Span]] | None = None,
    label: str | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[Explanation]:
    """Explain the predictions of a model for texts.

    Two methods are exact. `contributions` are the parts of a logit: the head is linear over the attention context, so that a
    logit is a bias plus a sum over the tokens, and `scores.sum(0) + base` is `logits`. `removal` is the output minus the output
    without a token: a token that is masked out does not exist, so that this is the output for the shorter text. A contribution
    does not say that its token is the cause, because the state of a token has read its neighbors. A removal does not say what
    two tokens do together, so that its scores do not add up.

    A model for joint classification is explained as the classifier of texts that it contains; its tags are in `entities`.

    Args:
        model: A classifier of texts (one label or several, or regression), a tagger or both, or for `removal` an
            encoder-decoder; the folder of one, or its name on the Hub. It runs in eval mode, which is restored, and on its
            device; a folder is loaded to the accelerator if there is one. For `removal` and the gradient methods it may be any
            model of transformers; for `removal` an audit checks first that padding between its tokens has no effect.
        tokenizer: Its fast tokenizer; None loads the one of a folder or name.
        texts: The texts.
        method: How tokens are scored; None selects "contributions" for sequence classifiers of this package, "removal" for
            others and for spans.
            "contributions": parts of the logits, for classifiers of texts and taggers without CRF of this package.
            "removal": the output minus the one without the token.
            "integrated_gradients", "gradient_x_input": by captum, over the embeddings, with a baseline of zeros.
            "attention": the weights, the mean over heads, for models of this package; the same for every output.
        unit: What has a score: each "token", or each "word" and punctuation mark with the space before it. The scores of its
            tokens are added up; for `removal` they are masked out together.
        spans: For `removal`, start and end of the parts of each text to remove, instead of `unit`.
        label: The class of a sequence classifier to explain. None explains all; each costs gradient methods a pass.
        batch_size: Maximum number of texts in a batch. Batches of long texts are smaller.
        max_length: Maximum number of tokens of a text; longer texts are truncated. None truncates nothing.

    Returns:
        An explanation for each text, in order. That of a text without a visible character has no tokens.

    Raises:
        ValueError: If an argument is invalid, the model has no such class, or the method does not fit the model.
        TypeError: If `texts` is a single text.
        OSError: If there is no such model.
        ImportError: If captum is needed and not installed.
    """
    check_arguments(texts, method, unit, spans, batch_size, max_length)
    explainer = Explainer(model, tokenizer, method if spans is None else "removal", label=label)
    return [*explainer.explain_each(texts, unit=unit, spans=spans, batch_size=batch_size, max_length=max_length)]


def check_arguments(
    texts: Sequence[str],
    method: str | None,
    unit: str,
    spans: Sequence[Sequence[Span]] | None,
    batch_size: int,
    max_length: int | None,
) -> None:
    """Check the arguments of `explain` that need no model.

    Raises:
        ValueError: If one is invalid.
        TypeError: If `texts` is a single text.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of strings, got a single string ({texts[:20]!r}).")
    for index, text in enumerate(texts):
        if has_unpaired_surrogate(text):
            raise ValueError(f"texts[{index}] must be Unicode, got the unpaired surrogate of {text[:20]!r}. Correct the text.")
    if unit not in get_args(Unit):
        raise ValueError(f"unit must be one of {', '.join(get_args(Unit))}, got {unit!r}.")
    for name, value in {"batch_size": batch_size, "max_length": max_length}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if spans is None:
        return
    if method not in (None, "removal"):
        raise ValueError(f'spans must be used with method="removal", got {method!r}.')
    if len(spans) != len(texts):
        raise ValueError(f"spans must have a list for each of {len(texts)} texts, got {len(spans)}.")
    for text, parts in zip(texts, spans, strict=True):
        for start, end in parts:
            if not 0 <= start < end <= len(text) or not text[start:end].strip():
                raise ValueError(f"A span must be a visible part of its text of {len(text)} characters, got {(start, end)}.")


class Explainer:
    """A model and the method that explains its predictions. The arguments are those of `explain`.

    Attributes:
        model: The model; of one for joint classification, the classifier of texts, which shares its weights.
        tokenizer: Its tokenizer.
        task: The task of this model.
        method: The method.

    Raises:
        ValueError: If the method does not fit the model, or the model has no such class.
        OSError: If there is no such model.
        ImportError: If captum is needed and not installed.
    """

    def __init__(
        self,
        model: PreTrainedModel | str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        method: Method | None = None,
        *,
        label: str | None = None,
    ):
        config, self.task = describe_model(model)
        has_contributions = config.model_type in FAMILIES and self.task == "text-classification"
        self.method: Method = method or ("contributions" if has_contributions else "removal")
        check_method(self.method, config, self.task)
        self._columns = None if label is None else [_find_class(label, config, self.task)]
        if isinstance(model, str | Path):
            tokenizer = tokenizer or load_tokenizer(model)
            model = _load_model(model)
        if tokenizer is None or not tokenizer.is_fast:
            raise ValueError(
                f"`tokenizer` must be the fast tokenizer of the model, got {type(tokenizer).__name__}. Load it with "
                "AutoTokenizer.from_pretrained."
            )
        task = task_of([type(model).__name__])
        self._joint_model = model if task == _JOINT else None
        self.model: PreTrainedModel = _build_classifier(model) if task == _JOINT else model
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        if self.method in _GRADIENT_METHODS and "inputs_embeds" not in read_argument_names(self.model):
            raise ValueError(f'method="{self.method}" needs a model with `inputs_embeds`, got {type(model).__name__}.')
        if self.method == "removal":
            with eval_mode(self.model):
                check_removal(self.model, tokenizer)

    def with_method(self, method: Method) -> "Explainer":
        """Build an explainer of the same model by another method."""
        return Explainer(self._joint_model or self.model, self.tokenizer, method)

    def explain_each(
        self,
        texts: Sequence[str],
        *,
        unit: Unit = "token",
        spans: Sequence[Sequence[Span]] | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
    ) -> Iterator[Explanation]:
        """Explain one text after the other; arguments as for `explain`.

        Yields:
            The explanations, in order. Texts are sorted by length in windows of 64 batches.
        """
        window = BATCHES_PER_WINDOW * batch_size
        for start in range(0, len(texts), window):
            part = texts[start : start + window]
            explanations = {index: self._explain_nothing(text, unit) for index, text in enumerate(part) if not text.strip()}
            for indices in batch_by_length(part, batch_size):
                rows = encode_texts(
                    self.model,
                    self.tokenizer,
                    [part[index] for index in indices],
                    unit=unit,
                    spans=None if spans is None else [spans[start + index] for index in indices],
                    with_special_tokens=self.method != "removal",
                    max_length=max_length,
                )
                results = self.compute(rows)
                found = self._find_entities(rows, [outputs for outputs, _ in results])
                for index, row, (outputs, scores), entities in zip(indices, rows, results, found, strict=True):
                    explanations[index] = Explanation(
                        text=row.text,
                        task=self.task,
                        method=self.method,
                        unit=unit if spans is None else "span",
                        tokens=row.tokens,
                        offsets=row.offsets,
                        labels=outputs.labels,
                        scores=scores.scores,
                        base=scores.base,
                        logits=scores.logits,
                        predicted=outputs.find_predicted(self.model.config, scores.logits),
                        generated_text=outputs.generated_text,
                        all_unknown=row.all_unknown,
                        entities=entities,
                    )
            yield from (explanations[index] for index in range(len(part)))

    @torch.no_grad()
    def compute(self, rows: Sequence[ExplainedText], columns: Sequence[int] | None = None) -> Explained:
        """Compute the scores of a batch of texts.

        Args:
            rows: The texts.
            columns: The columns to compute: classes of a sequence classifier, or units of a tagger. None computes those of the
                class that was chosen, or all.
        """
        columns = self._columns if columns is None else columns
        with eval_mode(self._joint_model or self.model):
            if self.method == "removal":
                return compute_removal(self.model, self.tokenizer, rows, columns)
            if self.method == "contributions":
                return compute_contributions(self.model, rows, columns, self._joint_model)
            if self.method == "attention":
                return compute_attention(self.model, rows, columns, self._joint_model)
            return compute_attributions(self.model, rows, columns, method=self.method)

    @torch.no_grad()
    def _find_entities(
        self, rows: Sequence[ExplainedText], outputs: Sequence[ExplainedOutputs]
    ) -> list[list[dict[str, Any]]] | list[None]:
        """Find the entities of a batch of texts as `predict` does; None where the model has no tags."""
        tagger = self._joint_model or self.model
        if self.task != "token-classification" and self._joint_model is None:
            return [None] * len(rows)
        known = [row.tag_logits for row in outputs if row.tag_logits is not None]
        if len(known) == len(rows):
            logits = pad_sequence(known, batch_first=True)
        else:  # the method ran the classifier of texts alone
            inputs = stack_texts(rows, tagger.device)
            with eval_mode(tagger):
                logits = tagger(**inputs).logits.cpu()
        texts, offsets = [row.text for row in rows], [row.token_offsets for row in rows]
        return find_entities(texts, [*map(split_words, texts)], offsets, logits, tagger.config)

    def _explain_nothing(self, text: str, unit: Unit) -> Explanation:
        """Explain a text without a visible character, for which `predict` has no prediction."""
        nothing = torch.zeros(0)
        return Explanation(text, self.task, self.method, unit, [], [], [], torch.zeros(0, 0), nothing, nothing, [])


def check_method(method: str, config: PreTrainedConfig, task: str) -> None:
    """Reject a method that does not fit a model.

    Raises:
        ValueError: With the methods that fit.
        ImportError: If captum is needed and not installed.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if method != "removal" and task not in CLASSIFIER_TASKS:
        raise ValueError(f'method must be "removal" for {task}, got {method!r}.')
    if method in ("contributions", "attention") and config.model_type not in FAMILIES:
        raise ValueError(
            f'method="{method}" needs a model of hf_maskattn, whose head is linear over one attention, got '
            f'{config.model_type}. Use method="removal".'
        )
    has_crf = task == "token-classification" and getattr(config, "use_crf", False)
    if method == "contributions" and has_crf:
        raise ValueError('method="contributions" needs a head that is linear, got use_crf=true. Use method="removal".')
    if method in _GRADIENT_METHODS:
        if has_crf:
            raise ValueError(
                f'method="{method}" needs logits with a gradient, got use_crf=true, whose logits are max-marginals. Use '
                'method="removal".'
            )
        check_captum()


def list_methods(config: PreTrainedConfig, task: str) -> tuple[list[Method], dict[str, str]]:
    """List the methods that fit a model, and why the others do not."""
    methods: list[Method] = []
    others: dict[str, str] = {}
    for method in METHODS:
        try:
            check_method(method, config, task)
            methods.append(method)
        except (ValueError, ImportError) as error:
            others[method] = str(error)
    return methods, others


def describe_model(model: PreTrainedModel | str | Path) -> tuple[PreTrainedConfig, str]:
    """Return the configuration of a model and its task; for joint classification, those of its classifier of texts.

    Raises:
        ValueError: If its predictions cannot be explained.
        OSError: If there is no such model.
    """
    config = load_config(model) if isinstance(model, str | Path) else model.config
    architectures = config.architectures if isinstance(model, str | Path) else [type(model).__name__]
    task = task_of(architectures)
    if task == _JOINT:
        return config.for_sequence_classification(), "text-classification"
    if task not in _TASKS:
        names = ", ".join((*_TASKS, _JOINT))
        raise ValueError(f"The model must be for one of the tasks {names}, got {', '.join(architectures or []) or 'no class'}.")
    return config, task


def _load_model(name_or_folder: str | Path) -> PreTrainedModel:
    """Load a model that `describe_model` accepts, to the accelerator if there is one."""
    config = load_config(name_or_folder)
    auto_class = TASKS[str(task_of(config.architectures))].auto_class.load()
    model = load_verified_model(auto_class, name_or_folder, config)
    device = torch.accelerator.current_accelerator(check_available=True)
    return model if device is None else model.to(device)


def _build_classifier(model: PreTrainedModel) -> PreTrainedModel:
    """Build the classifier of texts of a model for joint classification, whose modules it shares."""
    with torch.device("meta"):
        classifier = MaskAttnForSequenceClassification(model.config)
    classifier.maskattn, classifier.dropout, classifier.classifier = model.maskattn, model.dropout, model.classifier
    return classifier


def _find_class(label: str, config: PreTrainedConfig, task: str) -> int:
    if task != "text-classification":
        raise ValueError(f"A class must be chosen for text-classification only, got {label!r} for {task}.")
    names = [config.id2label[index] for index in range(config.num_labels)]
    check_label(label, names)
    return names.index(label)
