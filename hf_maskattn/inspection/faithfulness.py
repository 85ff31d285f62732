"""Measure how faithful explanations are: what the probability of a prediction loses without the tokens that they rank first."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.inspection.audit import eval_mode
from hf_maskattn.inspection.explain import CLASSIFIER_TASKS, Explainer, describe_model, list_methods
from hf_maskattn.inspection.explained_outputs import ExplainedOutputs
from hf_maskattn.inspection.explained_texts import ExplainedText, encode_texts
from hf_maskattn.inspection.explanations import Unit
from hf_maskattn.inspection.removal import find_outputs

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of the tokens that are erased or kept, as DeYoung et al. choose them."""

CURVE = tuple(step / 20 for step in range(1, 21))
"""Shares of the tokens that are erased along the perturbation curve."""

_BAR_DELAY_SECONDS = 2.0


class Faithfulness(NamedTuple):
    """The measures of a method, means over texts.

    Attributes:
        comprehensiveness: Loss of probability without the tokens that are ranked first; larger is better.
        sufficiency: Loss of probability with these tokens alone; smaller is better.
        area: Area over the perturbation curve: mean loss while tokens are erased in the order of their rank; larger is better.
    """

    comprehensiveness: float
    sufficiency: float
    area: float


@dataclass(frozen=True)
class Comparison:
    """Measures of several methods on the same predictions.

    Attributes:
        methods: The measures of each method, and of a random order.
        num_predictions: Number of predictions, one of each text.
        unit: What was erased: "token" or "word".
        seed: Seed of the texts that were sampled, the tags that were chosen, and the random order.
        skipped: Methods that were not measured, with the reason.
    """

    methods: dict[str, Faithfulness]
    num_predictions: int
    unit: str
    seed: int
    skipped: dict[str, str]

    def to_json(self) -> str:
        """Convert to a JSON object on one line."""
        values = {**asdict(self), "methods": {name: measures._asdict() for name, measures in self.methods.items()}}
        return json.dumps(values)


class _Prediction(NamedTuple):
    """The prediction of a text that is measured.

    Attributes:
        column: The column that methods explain.
        units: The units that are erased.
        outputs: All classes at its place.
        predicted: Its class.
    """

    column: int
    units: list[int]
    outputs: ExplainedOutputs
    predicted: int


def compare_methods(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Sequence[str],
    *,
    unit: Unit = "token",
    limit: int = 200,
    max_length: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare the methods that fit a model by erasing and keeping the tokens that each ranks first.

    Erased tokens are masked out, which for a model of this package is the shorter text and not, as elsewhere, a text with
    holes that the model has never seen. For a tagger, one predicted tag of each text is drawn, and the other tokens are erased.
    The number of tokens of a share is rounded up, so that it is at least one.

    Args:
        model: A classifier of texts or tagger, as for `explain`.
        tokenizer: As for `explain`.
        texts: The texts. Those with fewer than two tokens to erase, or without a tag other than "O", are not measured.
        unit: What is erased.
        limit: Maximum number of texts, which are sampled.
        max_length: Maximum number of tokens of a text; longer texts are truncated.
        seed: Seed of the sample and of the random order.

    Returns:
        The measures of each method and of a random order.

    Raises:
        ValueError: If the model predicts no classes, or there is no text to measure.

    Source:
        Comprehensiveness and sufficiency: DeYoung et al. 2020 (arXiv:1911.03429), section 4. Area over the perturbation curve:
        Samek et al. 2017 (arXiv:1509.06321), equation 12.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}.")
    _check_classes(model)
    removal = Explainer(model, tokenizer, "removal")
    model, tokenizer = removal.model, removal.tokenizer
    methods, skipped = list_methods(model.config, removal.task)
    explainers = {name: removal if name == "removal" else Explainer(model, tokenizer, name) for name in methods}
    generator = random.Random(seed)
    visible = [text for text in texts if text.strip()]
    sample = generator.sample(visible, min(limit, len(visible)))
    measured: dict[str, list[Faithfulness]] = {name: [] for name in ("random", *methods)}
    with eval_mode(model), torch.no_grad():
        for text in tqdm(sample, unit="text", delay=_BAR_DELAY_SECONDS, disable=None):
            (row,) = encode_texts(model, tokenizer, [text], unit=unit, with_special_tokens=False, max_length=max_length)
            prediction = _choose_prediction(model, tokenizer, row, generator)
            if prediction is None:
                continue
            units = prediction.units
            orders: dict[str, list[int]] = {"random": generator.sample(units, len(units))}
            for method, explainer in explainers.items():
                ((_, scores),) = explainer.compute([row], [prediction.column])
                ranked = scores.scores[:, 0].argsort(descending=True).tolist()
                orders[method] = [unit for unit in ranked if unit in units]
            for name in measured:
                measured[name].append(_measure(model, row, prediction, orders[name]))
    if not measured["random"]:
        raise ValueError(f"There must be a prediction with two tokens to compare, got none in {len(sample)} texts.")
    return Comparison(
        {name: Faithfulness(*map(_mean, zip(*rows, strict=True))) for name, rows in measured.items()},
        len(measured["random"]),
        unit,
        seed,
        skipped,
    )


def _check_classes(model: PreTrainedModel | str | Path) -> None:
    """Reject models that predict no classes, before any weights are loaded."""
    config, task = describe_model(model)
    if task not in CLASSIFIER_TASKS or config.problem_type == "regression" or config.num_labels < 2:
        kind = "regression" if task in CLASSIFIER_TASKS else task
        raise ValueError(f"A comparison needs a model that predicts classes or tags, got one for {kind}.")


def _choose_prediction(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: ExplainedText, generator: random.Random
) -> _Prediction | None:
    """Choose the predicted class of a text, or one of its predicted tags; None where there is nothing to erase."""
    units = [*range(len(row.columns))]
    outputs = find_outputs(model, tokenizer, row)
    if outputs.positions is None:
        logits = outputs.run_masks(model, row, row.mask_without([[]]))[0]
        best = int(logits.argmax())
        return _Prediction(best, units, outputs, best) if len(units) > 1 else None
    tagged = [unit for unit in units if model.config.id2label[outputs.ids[unit]] != "O"]
    if not tagged or len(units) < 3:  # itself and two others
        return None
    chosen = generator.choice(tagged)
    num_labels = model.config.num_labels
    all_tags = ExplainedOutputs([], [*range(num_labels)], [outputs.positions[chosen]] * num_labels)
    return _Prediction(chosen, [unit for unit in units if unit != chosen], all_tags, outputs.ids[chosen])


def _measure(model: PreTrainedModel, row: ExplainedText, prediction: _Prediction, order: Sequence[int]) -> Faithfulness:
    """Measure an order of the units of a text."""
    counts = {share: math.ceil(share * len(order)) for share in (*SHARES, *CURVE)}
    erased = {count: order[:count] for count in counts.values()}
    kept = {counts[share]: order[counts[share] :] for share in SHARES}
    masks = row.mask_without([[], *erased.values(), *kept.values()])
    logits = prediction.outputs.run_masks(model, row, masks)  # [R, classes]
    is_multi_label = model.config.problem_type == "multi_label_classification"
    probabilities = (logits.sigmoid() if is_multi_label else logits.softmax(dim=-1))[:, prediction.predicted].tolist()
    losses = [probabilities[0] - probability for probability in probabilities[1:]]
    without = dict(zip(erased, losses[: len(erased)], strict=True))
    with_only = dict(zip(kept, losses[len(erased) :], strict=True))
    return Faithfulness(
        comprehensiveness=_mean([without[counts[share]] for share in SHARES]),
        sufficiency=_mean([with_only[counts[share]] for share in SHARES]),
        area=_mean([without[counts[share]] for share in CURVE]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
