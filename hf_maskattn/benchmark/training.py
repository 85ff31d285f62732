"""Tables of whole training steps of the classifier: against others, over padding, and by what the time goes to."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch.nn.functional import cross_entropy

from hf_maskattn.benchmark.classifiers import NUM_LABELS, VOCAB_SIZE, WITHOUT_DROPOUT, our_classifier, textbook_classifier
from hf_maskattn.benchmark.keras_rival import keras_classifier
from hf_maskattn.benchmark.lengths import grouped_batches, random_batches, right_padded_mask
from hf_maskattn.benchmark.plan import Plan, Setting
from hf_maskattn.benchmark.profiling import REST, STEP, step_shares
from hf_maskattn.benchmark.report import Ratio, Row
from hf_maskattn.benchmark.timing import race
from hf_maskattn.benchmark.ways import Results, Way

BATCH_SIZE = 64
BATCHES = 4
SHORT_LENGTH, FAR = 40, 512
"""About how long the rows are in the table of far padding, and how far they are padded."""

_STEP = "Forward, loss, backward and AdamW"
_MODEL = f"the model of language_identification.yaml, batches of {BATCH_SIZE}"

_DRAWS = "With dropout the random draws differ, so that nothing is compared."


AnyBatch = TypeVar("AnyBatch")


class LabeledBatch(NamedTuple):
    """A batch of random tokens: ids `[B, T]`, mask `[B, T]`, labels `[B]`."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


def labeled_batch(lengths: Sequence[int], device: torch.device, time: int | None = None) -> LabeledBatch:
    """Draw a right-padded batch, with `time` columns or those of the longest row; the tokens do not depend on `time`."""
    generator = torch.Generator().manual_seed(0)
    mask = right_padded_mask(lengths, time)
    input_ids = torch.zeros(mask.shape, dtype=torch.int64)
    input_ids[mask] = torch.randint(3, VOCAB_SIZE, (sum(lengths),), generator=generator)
    labels = torch.randint(NUM_LABELS, (len(lengths),), generator=generator)
    return LabeledBatch(input_ids.to(device), mask.long().to(device), labels.to(device))


def training_plans(setting: Setting) -> list[Plan]:
    """Plan three tables: against others, over padding, shares of the step."""
    rows = {"random batches": random_batches(setting.lengths, BATCH_SIZE, BATCHES)}
    grouped = {"grouped by length": grouped_batches(setting.lengths, BATCH_SIZE, BATCHES)}
    return [
        Plan(
            title="Classifier, training step on the lengths of cldr-languages",
            caption=f"{_STEP}, {_MODEL}. Keras is not the same function. {_DRAWS}",
            cases={
                f"{case}, {dropout}": partial(_against_others, batches, changes, setting)
                for case, batches in {**rows, **grouped}.items()
                for dropout, changes in {"no dropout": WITHOUT_DROPOUT, "dropout": {}}.items()
            },
            ratios=[Ratio(f"times faster than {rival}", rival, "ours") for rival in ("textbook", "Keras 3")],
        ),
        Plan(
            title=f"Padding to {FAR} columns where rows have about {SHORT_LENGTH} tokens",
            caption=f"{_STEP}, {_MODEL}. {_DRAWS}",
            cases={
                "without dropout": partial(_over_padding, WITHOUT_DROPOUT, setting),
                "with dropout": partial(_over_padding, {}, setting),
            },
            ratios=[Ratio("times the time", f"padded to {FAR}", "padded to the longest row")],
        ),
        Plan(
            title="Where the time of our training step goes",
            caption=f"{_STEP}, {_MODEL}. Operators as a profiler sees them; the last part is what the step takes beyond them.",
            cases={case: partial(_shares, batches, setting) for case, batches in rows.items()},
            ratios=[Ratio("share of pooling, layout, head, loss", REST, STEP)],
        ),
    ]


def training_way(
    name: str,
    loss_of: Callable[[AnyBatch], torch.Tensor],
    parameters: Mapping[str, torch.Tensor],
    batches: Sequence[AnyBatch],
    comparable: bool = True,
) -> Way:
    """Prepare a step on each of the batches; what is compared are loss and gradients of the first.

    Args:
        name: Of the way.
        loss_of: The forward pass.
        parameters: What is trained, by the names that gradients are compared under.
        batches: The batches; times are those of one step, the mean of all.
        comparable: See `Way`.
    """
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, fused=True)

    def run() -> Results:
        results: dict[str, torch.Tensor | None] = {}
        for batch in batches:
            optimizer.zero_grad()
            loss = loss_of(batch)
            loss.backward()
            if not results:
                results = {f"gradient of {name}": parameter.grad for name, parameter in parameters.items()}
                results["loss"] = loss.detach()
            optimizer.step()
        return results

    return Way(name, run, comparable, 1 / len(batches))


def our_way(name: str, batches: Sequence[LabeledBatch], device: torch.device, changes: Mapping[str, float]) -> Way:
    """Prepare steps of our model, with changes to the recipe; compared where they switch dropout off."""
    model = our_classifier(**changes).to(device).train()
    parameters = dict(model.named_parameters())
    return training_way(name, lambda batch: model(**batch._asdict()).loss, parameters, batches, bool(changes))


def _against_others(rows: Sequence[Sequence[int]], changes: Mapping[str, float], setting: Setting) -> Row:
    batches = [labeled_batch(lengths, setting.device) for lengths in rows]
    ways = [
        our_way("ours", batches, setting.device, changes),
        _textbook_way(batches, changes, setting.device),
        _keras_way(batches, changes, setting.device),
    ]
    return race(ways, setting.seconds, setting.device)


def _textbook_way(batches: Sequence[LabeledBatch], changes: Mapping[str, float], device: torch.device) -> Way:
    ours = our_classifier(**changes)
    model = textbook_classifier(ours).to(device).train()
    # The names of ours, since the parameters stand in the same order.
    parameters = dict(zip((name for name, _ in ours.named_parameters()), model.parameters(), strict=True))
    return training_way(
        "textbook",
        lambda batch: cross_entropy(model(batch.input_ids, batch.attention_mask), batch.labels),
        parameters,
        batches,
        comparable=bool(changes),
    )


def _keras_way(batches: Sequence[LabeledBatch], changes: Mapping[str, float], device: torch.device) -> Way:
    try:
        model = keras_classifier(our_classifier(**changes).config)
    except ImportError as error:
        return Way("Keras 3", None, remark=str(error))
    model.to(device)
    parameters = {variable.path: variable.value for variable in model.trainable_variables}
    return training_way(
        "Keras 3",
        lambda batch: cross_entropy(model(batch.input_ids, training=True), batch.labels),
        parameters,
        batches,
        comparable=False,
    )


def _over_padding(dropouts: Mapping[str, float], setting: Setting) -> Row:
    lengths = (
        (SHORT_LENGTH + 10 * torch.randn(BATCH_SIZE, generator=torch.Generator().manual_seed(0))).long().clamp(min=1).tolist()
    )
    ways = [
        our_way(name, [labeled_batch(lengths, setting.device, time)], setting.device, dropouts)
        for name, time in {"padded to the longest row": None, f"padded to {FAR}": FAR}.items()
    ]
    return race(ways, setting.seconds, setting.device)


def _shares(rows: Sequence[Sequence[int]], setting: Setting) -> Row:
    batches = [labeled_batch(lengths, setting.device) for lengths in rows]
    return step_shares(our_way(STEP, batches, setting.device, {}), setting.device)
