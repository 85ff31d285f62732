"""Tables of the encoder-decoder: training steps and decoding, against what one would write step by step in plain torch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from hf_maskattn.benchmark.plan import Plan, Setting
from hf_maskattn.benchmark.report import Ratio, Row
from hf_maskattn.benchmark.rnnsearch_rival import END, StepByStepRNNSearch
from hf_maskattn.benchmark.timing import race
from hf_maskattn.benchmark.training import training_way
from hf_maskattn.benchmark.ways import Results, Way
from hf_maskattn.model.configuration_rnnsearch import RNNSearchConfig
from hf_maskattn.model.modeling_rnnsearch import RNNSearchForConditionalGeneration

VOCAB_SIZE = 1000
BEAMS = 4
OURS, CAREFUL, TUTORIAL = "ours", "careful", "tutorial"
RIVALS = {CAREFUL: True, TUTORIAL: False}
"""Whether a rival computes the keys of a source once."""

_NEVER = -1e4


class Shape(NamedTuple):
    """Rows, tokens of each source and of each target, and units H: in each direction of the encoder and in the decoder."""

    batch: int
    source: int
    target: int
    units: int

    def __str__(self) -> str:
        return f"B{self.batch}, {self.source} x {self.target}, H {self.units}"


class Pairs(NamedTuple):
    """Random sources with their masks, `[B, Tk]`, and labels `[B, T]`, all of them real."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


SHAPES = (Shape(64, 12, 12, 256), Shape(32, 50, 50, 512))


def rnnsearch_plans(setting: Setting) -> list[Plan]:
    """Plan three tables: a training step, greedy decoding, beam search."""
    model = (
        "Case: rows, tokens of source x target, units; widths in the proportions of the paper (annotations 2 H, attention H, "
        f"embeddings and maxout H / 2), one GRU layer on either side, {VOCAB_SIZE} words, no dropout"
    )
    ratios = [Ratio(f"times faster than {rival}", rival, OURS) for rival in RIVALS]

    def cases(measure: Callable[[Shape, Setting], Row]) -> dict[str, Callable[[], Row]]:
        return {str(shape): partial(measure, shape, setting) for shape in (SHAPES[:1] if setting.quick else SHAPES)}

    def decoding(title: str, beams: int) -> Plan:
        return Plan(
            title=f"RNNsearch, {title}",
            caption=f"Words of all rows in a second, all rows as long as the target. {model}.",
            cases=cases(partial(_decoding, beams)),
            ratios=[Ratio(ratio.heading, ratio.under, ratio.over) for ratio in ratios],
            unit="words/s",
        )

    return [
        Plan("RNNsearch, training step", f"Forward, loss, backward and AdamW. {model}.", cases(_training), ratios),
        decoding("greedy decoding", 1),
        decoding(f"beam search with {BEAMS} beams", BEAMS),
    ]


def our_rnnsearch(shape: Shape) -> RNNSearchForConditionalGeneration:
    """Build our model with random weights, the same at every call; it hardly ever ends a target before its time."""
    torch.manual_seed(0)
    config = RNNSearchConfig(
        vocab_size=VOCAB_SIZE,
        embedding_size=shape.units // 2,
        hidden_size=2 * shape.units,
        decoder_hidden_size=shape.units,
        attention_size=shape.units,
        hidden_dropout_prob=0.0,
        embedding_dropout_prob=0.0,
    )
    model = RNNSearchForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.bias[END] = _NEVER
    return model


def step_by_step(ours: RNNSearchForConditionalGeneration, keys_once: bool) -> StepByStepRNNSearch:
    """Build a rival with the weights of ours."""
    model = StepByStepRNNSearch(
        vocab_size=ours.config.vocab_size,
        embedding_size=ours.config.embedding_size,
        units=ours.config.attention_size,
        keys_once=keys_once,
    )
    with torch.no_grad():
        for parameter, own in zip(model.parameters(), ours.parameters(), strict=True):
            parameter.copy_(own)
    return model


def draw_pairs(shape: Shape, device: torch.device) -> Pairs:
    """Draw a batch, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(3, VOCAB_SIZE, (shape.batch, time), generator=generator).to(device) for time in shape[1:3])
    return Pairs(source, torch.ones_like(source), target)


def training_ways(shape: Shape, device: torch.device) -> list[Way]:
    """Prepare a training step of our model and of its rivals, all with the same weights; compared are loss and gradients."""
    pairs, ours = draw_pairs(shape, device), our_rnnsearch(shape).to(device)
    words = ours.prepare_decoder_input_ids_from_labels(pairs.labels)

    def loss_of(model: StepByStepRNNSearch, batch: Pairs) -> torch.Tensor:
        logits = model(batch.input_ids, batch.attention_mask, words)
        return cross_entropy(logits.flatten(0, 1), batch.labels.flatten())

    ways = [training_way(OURS, lambda batch: ours(**batch._asdict()).loss, dict(ours.named_parameters()), [pairs])]
    names = [name for name, _ in ours.named_parameters()]
    for name, keys_once in RIVALS.items():
        model = step_by_step(ours, keys_once).to(device)
        # The names of ours, since the parameters stand in the same order.
        ways.append(training_way(name, partial(loss_of, model), dict(zip(names, model.parameters(), strict=True)), [pairs]))
    return ways


def decoding_ways(shape: Shape, beams: int, device: torch.device) -> list[Way]:
    """Prepare `generate()` of our model and the searches of its rivals, all with the same weights; compared are the words."""
    source, mask, _ = draw_pairs(shape, device)
    ours = our_rnnsearch(shape).to(device).eval()

    def generate() -> torch.Tensor:
        found = ours.generate(source, attention_mask=mask, max_new_tokens=shape.target, num_beams=beams)
        return found[:, 1:]

    def search(model: StepByStepRNNSearch) -> torch.Tensor:
        if beams == 1:
            return model.greedy(source, mask, shape.target)
        return model.beam_search(source, mask, shape.target, beams)

    searches: Mapping[str, Callable[[], torch.Tensor]] = {
        OURS: generate,
        **{name: partial(search, step_by_step(ours, once).to(device).eval()) for name, once in RIVALS.items()},
    }
    return [Way(name, partial(_words, found)) for name, found in searches.items()]


def _words(search: Callable[[], torch.Tensor]) -> Results:
    return {"words": search()}


def _training(shape: Shape, setting: Setting) -> Row:
    return race(training_ways(shape, setting.device), setting.seconds, setting.device)


def _decoding(beams: int, shape: Shape, setting: Setting) -> Row:
    return words_a_second(race(decoding_ways(shape, beams, setting.device), setting.seconds, setting.device), shape)


def words_a_second(row: Row, shape: Shape) -> Row:
    """Turn the times of a case, in milliseconds, into words a second."""
    words = 1e3 * shape.batch * shape.target
    rates = {
        name: outcome if outcome.value is None else replace(outcome, value=words / outcome.value)
        for name, outcome in row.outcomes.items()
    }
    return replace(row, outcomes=rates)
