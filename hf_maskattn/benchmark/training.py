"""Tables of training steps of the classifier: against baselines, with much padding, and split by operator."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import TypeVar

import torch
from torch.nn.functional import cross_entropy

from hf_maskattn.benchmark.baselines import (
    WITHOUT_DROPOUT,
    build_keras_classifier,
    build_our_classifier,
    build_textbook_classifier,
)
from hf_maskattn.benchmark.batches import LabeledBatch, draw_grouped_batches, draw_labeled_batch, draw_random_batches
from hf_maskattn.benchmark.measurement import (
    Implementation,
    Results,
    Setting,
    compare_times,
    measure_interleaved,
    profile_on_cpu,
)
from hf_maskattn.benchmark.report import Outcome, Ratio, Row, Table

BATCH_SIZE = 64
NUM_BATCHES = 4
MEAN_LENGTH, PADDED_LENGTH = 40, 512
"""Mean row length, and number of columns, of the table with much padding."""

PROFILE_RUNS = 7
STEP, OTHER = "whole step", "pooling, layout, head, loss"
OPERATORS = {
    "recurrent kernel": ("aten::lstm", "aten::mkldnn_rnn_layer_backward"),
    "embedding": ("aten::embedding", "aten::embedding_backward"),
    "dropout": ("aten::dropout",),
    "optimizer": ("aten::_fused_adamw_",),
}
"""Operators of each part of a step; none of them runs inside another."""

_STEP = "Forward, loss, backward and AdamW"
_MODEL = f"an LSTM classifier of characters, batches of {BATCH_SIZE}"
_DROPOUT = "Results with dropout are not compared, since the random draws differ."

AnyBatch = TypeVar("AnyBatch")


def plan_training(setting: Setting) -> list[Table]:
    """Plan three tables: against baselines, with much padding, and the time of each part of a step."""
    random = {"random batches": draw_random_batches(setting.lengths, BATCH_SIZE, NUM_BATCHES)}
    grouped = {"grouped by length": draw_grouped_batches(setting.lengths, BATCH_SIZE, NUM_BATCHES)}
    return [
        Table(
            title="Classifier, training step on the lengths of cldr-languages",
            caption=f"{_STEP}, {_MODEL}. Keras is not the same function. {_DROPOUT}",
            cases={
                f"{case}, {dropout}": partial(_compare_with_baselines, rows, changes, setting)
                for case, rows in {**random, **grouped}.items()
                for dropout, changes in {"no dropout": WITHOUT_DROPOUT, "dropout": {}}.items()
            },
            ratios=[Ratio(f"times faster than {baseline}", baseline, "ours") for baseline in ("textbook", "Keras 3")],
        ),
        Table(
            title=f"Padding to {PADDED_LENGTH} columns where rows have about {MEAN_LENGTH} tokens",
            caption=f"{_STEP}, {_MODEL}. {_DROPOUT}",
            cases={
                "without dropout": partial(_compare_padding, WITHOUT_DROPOUT, setting),
                "with dropout": partial(_compare_padding, {}, setting),
            },
            ratios=[Ratio("times the time", f"padded to {PADDED_LENGTH}", "padded to the longest row")],
        ),
        Table(
            title="Where the time of our training step goes",
            caption=f"{_STEP}, {_MODEL}. Operators are timed by torch's profiler; the last part is the rest of the step.",
            cases={case: partial(_split_step, rows, setting) for case, rows in random.items()},
            ratios=[Ratio("share of pooling, layout, head, loss", OTHER, STEP)],
        ),
    ]


def build_training_steps(
    name: str,
    compute_loss: Callable[[AnyBatch], torch.Tensor],
    parameters: Mapping[str, torch.Tensor],
    batches: Sequence[AnyBatch],
    comparable: bool = True,
) -> Implementation:
    """Build a run of one training step per batch, whose results are the loss and the gradients of the first step.

    Args:
        name: Name of the implementation.
        compute_loss: The forward pass.
        parameters: The parameters to train, by the names that their gradients are compared with.
        batches: The batches; times are the mean per step.
        comparable: See `Implementation`.
    """
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, fused=True)

    def run() -> Results:
        results: dict[str, torch.Tensor | None] = {}
        for batch in batches:
            optimizer.zero_grad()
            loss = compute_loss(batch)
            loss.backward()
            if not results:
                results = {f"gradient of {name}": parameter.grad for name, parameter in parameters.items()}
                results["loss"] = loss.detach()
            optimizer.step()
        return results

    return Implementation(name, run, comparable, 1 / len(batches))


def build_our_steps(
    name: str, batches: Sequence[LabeledBatch], device: torch.device, changes: Mapping[str, float]
) -> Implementation:
    """Build training steps of our model, with changes to its configuration; results are compared if they disable dropout."""
    model = build_our_classifier(**changes).to(device).train()
    parameters = dict(model.named_parameters())
    return build_training_steps(name, lambda batch: model(**batch._asdict()).loss, parameters, batches, bool(changes))


def build_textbook_steps(batches: Sequence[LabeledBatch], device: torch.device, changes: Mapping[str, float]) -> Implementation:
    """Build training steps of the textbook model with the same weights."""
    ours = build_our_classifier(**changes)
    model = build_textbook_classifier(ours).to(device).train()
    names = [name for name, _ in ours.named_parameters()]  # both models have the same order
    return build_training_steps(
        "textbook",
        lambda batch: cross_entropy(model(batch.input_ids, batch.attention_mask), batch.labels),
        dict(zip(names, model.parameters(), strict=True)),
        batches,
        comparable=bool(changes),
    )


def _build_keras_steps(batches: Sequence[LabeledBatch], device: torch.device, changes: Mapping[str, float]) -> Implementation:
    try:
        model = build_keras_classifier(build_our_classifier(**changes).config)
    except ImportError as error:
        return Implementation("Keras 3", None, remark=str(error))
    model.to(device)
    return build_training_steps(
        "Keras 3",
        lambda batch: cross_entropy(model(batch.input_ids, training=True), batch.labels),
        {variable.path: variable.value for variable in model.trainable_variables},
        batches,
        comparable=False,
    )


def _compare_with_baselines(rows: Sequence[Sequence[int]], changes: Mapping[str, float], setting: Setting) -> Row:
    batches = [draw_labeled_batch(lengths, setting.device) for lengths in rows]
    implementations = [
        build_our_steps("ours", batches, setting.device, changes),
        build_textbook_steps(batches, setting.device, changes),
        _build_keras_steps(batches, setting.device, changes),
    ]
    return compare_times(implementations, setting.seconds, setting.device)


def _compare_padding(changes: Mapping[str, float], setting: Setting) -> Row:
    noise = torch.randn(BATCH_SIZE, generator=torch.Generator().manual_seed(0))
    lengths = (MEAN_LENGTH + 10 * noise).long().clamp(min=1).tolist()
    implementations = [
        build_our_steps(name, [draw_labeled_batch(lengths, setting.device, time)], setting.device, changes)
        for name, time in {"padded to the longest row": None, f"padded to {PADDED_LENGTH}": PADDED_LENGTH}.items()
    ]
    return compare_times(implementations, setting.seconds, setting.device)


def _split_step(rows: Sequence[Sequence[int]], setting: Setting) -> Row:
    """Measure a training step and its operators, in turns without and with torch's profiler; medians in milliseconds."""
    batches = [draw_labeled_batch(lengths, setting.device) for lengths in rows]
    step = build_our_steps(STEP, batches, setting.device, {})
    if setting.device.type != "cpu" or step.run is None:
        return Row({STEP: Outcome(remark="measured on a CPU only")})
    times: dict[str, list[float]] = {name: [] for name in (STEP, *OPERATORS)}
    for _ in range(PROFILE_RUNS):
        times[STEP] += measure_interleaved({STEP: step.run}, 0.0, setting.device)[STEP]
        totals = {event.key: event.cpu_time_total for event in profile_on_cpu(step.run).key_averages()}  # microseconds
        for part, operators in OPERATORS.items():
            times[part].append(1e-6 * sum(totals.get(operator, 0.0) for operator in operators))
    values = {name: 1e3 * median(seconds) for name, seconds in times.items()}
    values[OTHER] = values[STEP] - sum(values[part] for part in OPERATORS)
    return Row({name: Outcome(value * step.scale) for name, value in values.items()}, runs=PROFILE_RUNS)
