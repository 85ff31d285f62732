"""Tables of the encoder-decoder: training steps and decoding, against a step-by-step loop in plain torch."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from hf_maskattn.benchmark.baselines import END, StepwiseRNNSearch, copy_weights
from hf_maskattn.benchmark.measurement import Implementation, Results, Setting, compare_times
from hf_maskattn.benchmark.report import Ratio, Row, Table
from hf_maskattn.benchmark.training import build_training_steps
from hf_maskattn.model.configuration_rnnsearch import RNNSearchConfig
from hf_maskattn.model.modeling_rnnsearch import RNNSearchForConditionalGeneration

VOCAB_SIZE = 1000
NUM_BEAMS = 4
OURS, CAREFUL, TUTORIAL = "ours", "careful", "tutorial"
BASELINES = {CAREFUL: True, TUTORIAL: False}
"""Whether a baseline computes the keys of a source once."""


class Shape(NamedTuple):
    """Rows, tokens of each source and target, and units H in each direction of the encoder and in the decoder."""

    batch: int
    source: int
    target: int
    units: int

    def __str__(self) -> str:
        return f"B{self.batch}, {self.source} x {self.target}, H {self.units}"


class Pairs(NamedTuple):
    """Random sources `[B, Tk]`, their masks, and labels `[B, T]`, without padding."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


SHAPES = (Shape(64, 12, 12, 256), Shape(32, 50, 50, 512))


def plan_rnnsearch(setting: Setting) -> list[Table]:
    """Plan three tables: a training step, greedy decoding, beam search."""
    model = (
        "Case: rows, tokens of source x target, units H; sizes in the proportions of the paper (annotations 2 H, attention H, "
        f"embeddings and maxout H / 2), one GRU layer on either side, a vocabulary of {VOCAB_SIZE}, no dropout"
    )
    ratios = [Ratio(f"times faster than {baseline}", baseline, OURS) for baseline in BASELINES]

    def cases(measure: Callable[[Shape, Setting], Row]) -> dict[str, Callable[[], Row]]:
        return {str(shape): partial(measure, shape, setting) for shape in (SHAPES[:1] if setting.quick else SHAPES)}

    def plan_decoding(title: str, num_beams: int) -> Table:
        return Table(
            title=f"RNNsearch, {title}",
            caption=f"Target tokens of all rows per second; no row ends early. {model}.",
            cases=cases(partial(_measure_decoding, num_beams)),
            ratios=[Ratio(ratio.heading, ratio.denominator, ratio.numerator) for ratio in ratios],
            unit="tokens/s",
        )

    return [
        Table("RNNsearch, training step", f"Forward, loss, backward and AdamW. {model}.", cases(_measure_training), ratios),
        plan_decoding("greedy decoding", 1),
        plan_decoding(f"beam search with {NUM_BEAMS} beams", NUM_BEAMS),
    ]


def build_our_rnnsearch(shape: Shape) -> RNNSearchForConditionalGeneration:
    """Build our model with the same random weights in each call; it practically never generates the end token."""
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
        model.lm_head.bias[END] = -1e4
    return model


def build_baseline(ours: RNNSearchForConditionalGeneration, precompute_keys: bool) -> StepwiseRNNSearch:
    """Build a baseline with the weights of our model."""
    model = StepwiseRNNSearch(
        vocab_size=ours.config.vocab_size,
        embedding_size=ours.config.embedding_size,
        units=ours.config.attention_size,
        precompute_keys=precompute_keys,
    )
    copy_weights(ours, model)
    return model


def draw_pairs(shape: Shape, device: torch.device) -> Pairs:
    """Draw a batch, the same in each call."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(3, VOCAB_SIZE, (shape.batch, shape.source), generator=generator).to(device)
    target = torch.randint(3, VOCAB_SIZE, (shape.batch, shape.target), generator=generator).to(device)
    return Pairs(source, torch.ones_like(source), target)


def build_trainings(shape: Shape, device: torch.device) -> list[Implementation]:
    """Build a training step of our model and of the baselines, with the same weights."""
    pairs, ours = draw_pairs(shape, device), build_our_rnnsearch(shape).to(device)
    decoder_input_ids = ours.prepare_decoder_input_ids_from_labels(pairs.labels)

    def compute_loss(model: StepwiseRNNSearch, batch: Pairs) -> torch.Tensor:
        logits = model(batch.input_ids, batch.attention_mask, decoder_input_ids)
        return cross_entropy(logits.flatten(0, 1), batch.labels.flatten())

    parameters = dict(ours.named_parameters())
    implementations = [build_training_steps(OURS, lambda batch: ours(**batch._asdict()).loss, parameters, [pairs])]
    for name, precompute_keys in BASELINES.items():
        model = build_baseline(ours, precompute_keys).to(device)
        parameters = dict(zip(parameters, model.parameters(), strict=True))  # both models have the same order
        implementations.append(build_training_steps(name, partial(compute_loss, model), parameters, [pairs]))
    return implementations


def build_decodings(shape: Shape, num_beams: int, device: torch.device) -> list[Implementation]:
    """Build `generate()` of our model and the searches of the baselines, with the same weights; results are the tokens."""
    source, mask, _ = draw_pairs(shape, device)
    ours = build_our_rnnsearch(shape).to(device).eval()

    def generate() -> Results:
        sequences = ours.generate(source, attention_mask=mask, max_new_tokens=shape.target, num_beams=num_beams)
        return {"tokens": sequences[:, 1:]}

    def search(model: StepwiseRNNSearch) -> Results:
        if num_beams == 1:
            return {"tokens": model.greedy_search(source, mask, shape.target)}
        return {"tokens": model.beam_search(source, mask, shape.target, num_beams)}

    return [
        Implementation(OURS, generate),
        *(
            Implementation(name, partial(search, build_baseline(ours, precompute_keys).to(device).eval()))
            for name, precompute_keys in BASELINES.items()
        ),
    ]


def _measure_training(shape: Shape, setting: Setting) -> Row:
    return compare_times(build_trainings(shape, setting.device), setting.seconds, setting.device)


def _measure_decoding(num_beams: int, shape: Shape, setting: Setting) -> Row:
    row = compare_times(build_decodings(shape, num_beams, setting.device), setting.seconds, setting.device)
    return convert_to_tokens_per_second(row, shape)


def convert_to_tokens_per_second(row: Row, shape: Shape) -> Row:
    """Convert the times of a case, in milliseconds, to target tokens per second."""
    tokens = 1e3 * shape.batch * shape.target
    outcomes = {
        name: outcome if outcome.value is None else replace(outcome, value=tokens / outcome.value)
        for name, outcome in row.outcomes.items()
    }
    return replace(row, outcomes=outcomes)
