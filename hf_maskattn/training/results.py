"""The results of a run: metrics, statistics of its attention, model card, picture, and publication on the Hub."""

import json
import logging
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate
import datasets
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.trainer_pt_utils import get_model_param_count

from hf_maskattn import __version__
from hf_maskattn.checkpoints.checkpoints import write_atomically
from hf_maskattn.checkpoints.run_folder import CARD_FILE, METRICS_FILE, PICTURE_FILE
from hf_maskattn.data.files import DICTIONARY_SUFFIX
from hf_maskattn.data.loading import BUILT_IN
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.hub.model_card import MAX_EXAMPLES, TrainingData, build_model_card
from hf_maskattn.hub.publish import Publication
from hf_maskattn.inspection.attention_maps import (
    AlignmentMap,
    attention_maps,
    describe_missing,
    draw_alignments,
    draw_attention_maps,
    find_missing_characters,
)
from hf_maskattn.inspection.explain import explain
from hf_maskattn.inspection.explanation_plots import draw_explanations
from hf_maskattn.inspection.text_generation import generate_texts
from hf_maskattn.metrics.task_metrics import TaskEvaluation
from hf_maskattn.model.losses import IGNORED
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.tasks import task_of

if TYPE_CHECKING:
    from hf_maskattn.training.assembly import Assembly
    from hf_maskattn.training.error_analysis import ErrorAnalysis
    from hf_maskattn.training.seeds import SeedScores

logger = logging.getLogger(__name__)

MEAN_ENTROPY = 0.98
"""Normalized entropy above which weights are those of a mean."""


@dataclass(frozen=True)
class AttentionStatistics:
    """Statistics of additive attention over some rows.

    Attributes:
        entropy: Normalized entropy of the weights, -sum(w ln w) / ln(n) for n tokens: 0 if one token has all the weight, 1 if
            all have the same. Mean over rows, heads and, for an encoder-decoder, target tokens. Rows of one token are left out;
            None if there are no others.
        tanh_derivative: 1 - tanh(W q + U h)^2, the mean over all tokens and units: near 0 the scores are saturated, and no
            gradient reaches what is below them. None if there is no token.
        rows: Number of rows.
    """

    entropy: float | None
    tanh_derivative: float | None
    rows: int

    @property
    def is_mean(self) -> bool:
        """Whether the weights are those of a mean over the tokens."""
        return self.entropy is not None and self.entropy > MEAN_ENTROPY

    def describe(self) -> str:
        """Describe the statistics in sentences for readers who do not know them."""
        sentences = []
        if self.entropy is not None:
            sentences.append(
                f"The normalized entropy of the weights is {self.entropy:.3f} (0: one token has all, 1: all have equal weight)."
            )
        if self.is_mean:
            sentences.append("The attention is a mean: all tokens of a row have nearly the same weight.")
        if self.tanh_derivative is not None:
            sentences.append(f"The mean derivative of tanh in the scores is {self.tanh_derivative:.3f} (near 0: saturated).")
        return " ".join(sentences)


@torch.no_grad()
def attention_statistics(model: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]) -> AttentionStatistics:
    """Measure the attention of a model, in evaluation mode.

    Args:
        model: A model of this package, with or without a head. An encoder-decoder needs its head.
        batches: `input_ids` and `attention_mask` `[B, T]` and, for an encoder-decoder, the `labels` of teacher forcing.

    Returns:
        The statistics. For an encoder-decoder they are those of its decoder.
    """
    observe = _observe_decoder if model.config.is_encoder_decoder else _observe_pooling
    was_training = model.training
    model.eval()
    entropies: list[torch.Tensor] = []
    derivatives: list[torch.Tensor] = []
    num_rows = 0
    for batch in batches:
        for weights, activations in observe(model, {name: value.to(model.device) for name, value in batch.items()}):
            num_rows += 1
            if weights.shape[-1] > 1:
                entropies.append(normalized_entropy(weights).flatten())
            derivatives.append((1 - activations.float() ** 2).mean(dim=-1).flatten())
    model.train(was_training)
    return AttentionStatistics(_mean(entropies), _mean(derivatives), num_rows)


def normalized_entropy(weights: torch.Tensor) -> torch.Tensor:
    """Compute -sum(w ln w) / ln(n) of weights `[..., n]` that sum to one, n >= 2: `[...]`, float32, in 0..1."""
    weights = weights.float()
    return -torch.special.xlogy(weights, weights).sum(dim=-1) / torch.tensor(weights.shape[-1]).log()


def _observe_pooling(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Observe the pooling of each row of n tokens: weights `[heads, 1, n]` and activations `[1, n, A]`."""
    encoder, mask = model.base_model, batch["attention_mask"].bool()
    outputs = encoder(batch["input_ids"], mask, output_attentions=True)
    memory = outputs.last_hidden_state
    activations = encoder.pooling.activations(memory, mask, encoder.recurrence.last_state(memory, mask))  # [B, 1, T, A]
    for row, is_token in enumerate(mask):
        yield outputs.attentions[0][row][..., is_token], activations[row][:, is_token]


def _observe_decoder(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Observe the decoder of each row of m target and n source tokens: weights `[heads, m, n]` and activations `[m, n, A]`.

    With the query "previous" there are no activations of the first step, whose query is the initial state.
    """
    outputs = model(**batch, output_attentions=True, output_hidden_states=True)
    is_source, is_target = batch["attention_mask"].bool(), batch["labels"] != IGNORED
    for row, source in enumerate(is_source):
        weights = outputs.cross_attentions[0][row][:, is_target[row]][..., source]
        queries = outputs.decoder_hidden_states[1][row][is_target[row]]  # [m, H], the states of the layer that attends
        if model.config.attention_query == "previous":
            queries = queries[:-1]
        memory = outputs.encoder_last_hidden_state[row][source]  # [n, H]
        # Row by row: for a batch the activations of all pairs may not fit into memory.
        yield weights, model.base_model.decoder.attention.activations(queries[None], memory[None])[0]


def _mean(values: list[torch.Tensor]) -> float | None:
    joined = torch.cat(values) if values else torch.empty(0)
    return joined.mean().item() if len(joined) else None


@dataclass(frozen=True)
class BestEvaluation:
    """The evaluation that selected the weights of a model.

    Attributes:
        step: Its step.
        epoch: Its epoch. None for a stream.
        metric: The metric that the weights are selected by.
        value: Its value on the validation split.
        averaged_steps: The steps of the checkpoints whose weights were averaged; `step` is the last one. Empty without.
    """

    step: int
    epoch: float | None
    metric: str
    value: float
    averaged_steps: list[int] = field(default_factory=list)

    @classmethod
    def find(cls, trainer: Trainer) -> "BestEvaluation | None":
        """Find it in the log of a Trainer. None if the model has the last weights."""
        state, args = trainer.state, trainer.args
        if not args.load_best_model_at_end or state.best_global_step is None or state.best_metric is None:
            return None
        epochs = [entry["epoch"] for entry in state.log_history if entry["step"] == state.best_global_step]
        epoch = epochs[0] if epochs and not isinstance(trainer.train_dataset, RowStream) else None
        return cls(state.best_global_step, epoch, str(args.metric_for_best_model).removeprefix("eval_"), state.best_metric)

    def __str__(self) -> str:
        """Describe it in a few words."""
        score = f"with {self.metric} {self.value:.4g} on the validation split"
        if self.averaged_steps:
            steps = f"steps {self.averaged_steps[0]:,} to {self.step:,}"
            return f"average of {len(self.averaged_steps)} checkpoints, {steps}, {score}"
        epoch = "" if self.epoch is None else f"epoch {self.epoch:.4g}, "
        return f"{epoch}step {self.step:,}, {score}"


@dataclass(frozen=True)
class RunReport:
    """The results of a run.

    Attributes:
        model_folder: Folder of the model.
        metrics: Values by metric name, by split.
        is_main_process: Whether this process may print and write.
        publication: The commit on the Hub. None if the run was not published.
        attention: How the model attends. None if it was not measured.
        best: The evaluation that selected the weights. None if they are the last ones.
        example: A text that the model can read. None if there is none.
        seeds: Scores of all seeds of the recipe, if it has several. The model is then the one of the best seed.
        analysis: The errors on the split that was evaluated last. None for a task without an analysis.
    """

    model_folder: Path
    metrics: dict[str, dict[str, float]]
    is_main_process: bool
    publication: Publication | None = None
    attention: AttentionStatistics | None = None
    best: BestEvaluation | None = None
    example: str | None = None
    seeds: "SeedScores | None" = None
    analysis: "ErrorAnalysis | None" = None

    def save(self) -> None:
        """Write `metrics.json`, with the versions that the numbers may depend on."""
        packages = {module.__name__: module.__version__ for module in (torch, transformers, datasets, accelerate)}
        content = {
            "metrics": self.metrics,
            "best_checkpoint": None if self.best is None or self.best.averaged_steps else f"checkpoint-{self.best.step}",
            "best": self.best and asdict(self.best),
            "attention": self.attention and asdict(self.attention),
            "versions": {"python": platform.python_version(), "hf_maskattn": __version__, **packages},
        }
        write_atomically(self.model_folder / METRICS_FILE, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, *, is_main_process: bool = True) -> "RunReport":
        """Read the `metrics.json` of a run."""
        content = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        attention, best = content.get("attention"), content.get("best")
        return cls(
            folder,
            content["metrics"],
            is_main_process,
            attention=attention and AttentionStatistics(**attention),
            best=best and BestEvaluation(**best),
        )

    def to_json(self, split: str) -> str:
        """Format the metrics of a split, and its errors without their rows, as JSON."""
        report = {"split": split, "metrics": self.metrics[split]} if self.analysis is None else self.analysis.report
        return json.dumps({"model": str(self.model_folder), **report}, indent=2, ensure_ascii=False)


def score(trainer: Trainer, split: str, dataset: datasets.Dataset, evaluation: TaskEvaluation) -> dict[str, float]:
    """Evaluate the model inputs of a split: loss, metrics, seconds and rows per second."""
    # Trainer.evaluate would evaluate the validation split again if dataloader workers are persistent.
    return select_metrics(trainer.predict(dataset, metric_key_prefix=split).metrics, split, evaluation)


def select_metrics(values: Mapping[str, float], split: str, evaluation: TaskEvaluation) -> dict[str, float]:
    """Select the metrics of a split from those of `Trainer`, whose names begin with its name; see `score`."""
    names = ("loss", *evaluation.metric_names, "runtime", "samples_per_second")
    return {name: float(values[f"{split}_{name}"]) for name in names if f"{split}_{name}" in values}


MAX_ATTENTION_ROWS = 512
"""Number of rows over which attention is measured."""

_ATTENTION_BATCH_SIZE = 32


def measure_attention(assembly: "Assembly") -> AttentionStatistics | None:
    """Measure how the model of a run attends over the first `MAX_ATTENTION_ROWS` rows of the validation split.

    Returns:
        The statistics. None if there is no validation split, or the model is sharded.
    """
    trainer = assembly.trainer
    split: datasets.Dataset | None = trainer.eval_dataset
    if split is None or _is_sharded(trainer):
        return None
    names = ["input_ids", "attention_mask"]
    collate: Callable[..., Any] = partial(assembly.data.tokenizer.pad, return_tensors="pt")
    if trainer.model.config.is_encoder_decoder:
        names, collate = [*names, "labels"], trainer.data_collator
    rows = split.select_columns(names).select(range(min(MAX_ATTENTION_ROWS, split.num_rows))).to_list()
    starts = range(0, len(rows), _ATTENTION_BATCH_SIZE)
    return attention_statistics(trainer.model, (collate(rows[start : start + _ATTENTION_BATCH_SIZE]) for start in starts))


def _is_sharded(trainer: Trainer) -> bool:
    """Whether the forward pass needs all processes."""
    return trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled


_MAX_TOKENS_IN_PICTURE = 30


def write_card(assembly: "Assembly", recipe: Recipe, report: RunReport) -> None:
    """Write `README.md` and, if matplotlib is installed, `attention.png` to the folder of a run.

    Attention that is a mean is stated, and not drawn.
    """
    trainer, data, folder = assembly.trainer, assembly.data, report.model_folder
    attention, best = report.attention, report.best
    texts = [text for text in data.examples if text.strip()]
    is_drawn = not (_is_sharded(trainer) or (attention is not None and attention.is_mean))
    has_picture = is_drawn and draw_picture(trainer.model, data.tokenizer, texts, folder / PICTURE_FILE)
    if recipe.model.task == "fill-mask":
        texts = [_with_mask(text, data.tokenizer.mask_token) for text in texts]
    pretrained, embeddings = recipe.model.pretrained, recipe.model.embeddings
    card = build_model_card(
        name=folder.resolve().name,
        config=trainer.model.config,
        num_parameters=get_model_param_count(trainer.model),
        task=recipe.model.task,
        data=_describe_data(assembly, recipe),
        metrics={split: values for split, values in report.metrics.items() if split != "train"},
        metric_names=assembly.evaluation.metric_names,
        base_model=pretrained and public_name(pretrained),
        base_model_id=pretrained and hub_id_of(pretrained),
        embeddings=embeddings and public_name(embeddings),
        examples=texts,
        picture=PICTURE_FILE if has_picture else None,
        attention=None if attention is None else f"On {attention.rows} rows of the validation split: {attention.describe()}",
        teacher=None if recipe.teacher is None else public_name(recipe.teacher.model),
        selection=None if best is None else f"Weights: {best}.",
    )
    write_atomically(folder / CARD_FILE, str(card))


def hub_id_of(source: str) -> str | None:
    """Return the Hub name of a model or dataset. None if it is a local one."""
    path = Path(source)
    is_local = source in BUILT_IN or path.exists() or path.suffix.lower() == DICTIONARY_SUFFIX
    return None if is_local else source


def public_name(source: str) -> str:
    """Return the name of a model or dataset for the model card, without its path on this machine."""
    if source in BUILT_IN:
        return source
    return hub_id_of(source) or Path(source).resolve().name


def draw_picture(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], path: Path) -> bool:
    """Draw the contributions of tokens to the predicted classes, the attention over texts, or the alignment with outputs.

    Long texts are truncated, and those with characters that no installed font has are left out.

    Returns:
        Whether a picture was drawn. It is not if matplotlib is not installed, or no text can be drawn.
    """
    try:
        shortened = [text for text in (_first_tokens(tokenizer, text) for text in texts) if text]
        missing = find_missing_characters("".join(shortened))
        shown = [text for text in shortened if not missing & {*text}][:MAX_EXAMPLES]
        if missing and len(shown) < min(MAX_EXAMPLES, len(shortened)):
            logger.warning(f"The picture of the model card leaves out texts. {describe_missing(missing)}")
        if not shown:
            return False
        note = f" (first {min(_MAX_TOKENS_IN_PICTURE, tokenizer.model_max_length)} tokens)" if {*shown} - {*texts} else ""
        if model.config.is_encoder_decoder:
            written = generate_texts(model, tokenizer, shown, batch_size=len(shown), with_alignment=True)
            alignments = [_first_targets(text.alignment) for text in written if text.alignment is not None]
            draw_alignments(alignments, path, note)
        elif task_of([type(model).__name__]) in ("text-classification", "joint-classification"):
            draw_explanations(explain(model, tokenizer, shown), path)
        else:
            draw_attention_maps({f"attention{note}": attention_maps(model, tokenizer, shown)}, path)
    except ImportError as error:
        logger.info(f"The model card has no picture. {error}")
        return False
    except Exception as error:  # a picture is not worth a failed run
        logger.warning(f"The model card has no picture, because drawing it failed: {error!r}")
        return False
    return True


def _first_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    length = min(_MAX_TOKENS_IN_PICTURE, tokenizer.model_max_length)
    encoded = tokenizer(text, truncation=True, max_length=length, return_offsets_mapping=True)
    return text[: max((end for _, end in encoded["offset_mapping"]), default=0)]


def _first_targets(alignment: AlignmentMap) -> AlignmentMap:
    target, weights = alignment.target[:_MAX_TOKENS_IN_PICTURE], alignment.weights[:_MAX_TOKENS_IN_PICTURE]
    return replace(alignment, target=target, weights=weights)


def _with_mask(text: str, mask_token: str) -> str:
    words = text.split()
    words[len(words) // 2] = mask_token
    return " ".join(words)


_MAX_EXAMPLE_LENGTH = 60
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def example_text(assembly: "Assembly") -> str | None:
    """Return the first words of a text that the model was not trained on, for commands. None if there is none."""
    texts = (" ".join(text.split()) for text in assembly.data.examples)
    text = next((text[:_MAX_EXAMPLE_LENGTH].strip() for text in texts if text), None)
    if text is None or assembly.recipe.model.task != "fill-mask":
        return text
    return _with_mask(text, assembly.data.tokenizer.mask_token)


def _describe_data(assembly: "Assembly", recipe: Recipe) -> TrainingData:
    data, info = recipe.data, assembly.data.info
    is_hub_name = data.name is not None and _HUB_NAME.fullmatch(data.name)
    hub_id = data.name if is_hub_name else data.source and hub_id_of(data.source)
    return TrainingData(
        name=data.name or (public_name(data.source) if data.source else Path(str(data.train_file)).name),
        hub_id=hub_id,
        description=info.description,
        license=info.license,
        homepage=info.homepage,
        rows={name: None if isinstance(split, RowStream) else split.num_rows for name, split in assembly.data.splits.items()},
    )
