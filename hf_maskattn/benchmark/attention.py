"""Tables of additive attention: time and additional memory of a training step with each implementation."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from hf_maskattn.benchmark.batches import build_right_padded_mask, draw_lengths
from hf_maskattn.benchmark.measurement import Implementation, Results, Setting, compare_peak_memory, compare_times
from hf_maskattn.benchmark.report import Ratio, Row, Table
from hf_maskattn.model.attention import IMPLEMENTATIONS, AdditiveAttention

REFERENCE = "eager"


class Shape(NamedTuple):
    """Number of rows, queries and keys, size of all vectors, and distribution of the row lengths."""

    batch: int
    queries: int
    time: int
    width: int
    distribution: str

    def __str__(self) -> str:
        return f"B{self.batch} Tq{self.queries} Tk{self.time} A{self.width}, {self.distribution}"


QUICK_SHAPES = (Shape(4, 256, 256, 256, "equal"), Shape(64, 1, 64, 128, "uniform"))
FULL_SHAPES = (
    Shape(4, 256, 256, 256, "equal"),
    Shape(4, 256, 256, 256, "uniform"),
    Shape(16, 64, 64, 128, "uniform"),
    Shape(64, 1, 64, 128, "uniform"),
    Shape(64, 1, 512, 128, "uniform"),
)
GROWING_SHAPES = tuple(Shape(2, 64, time, 128, "equal") for time in (128, 256, 512, 1024))


def plan_attention(setting: Setting) -> list[Table]:
    """Plan three tables: time, additional memory, and additional memory for increasing numbers of keys."""
    others = [name for name in IMPLEMENTATIONS if name != REFERENCE]
    shapes = QUICK_SHAPES if setting.quick else FULL_SHAPES
    step = "Forward and backward of one head. Case: rows B, queries Tq, keys Tk, size A of all vectors, lengths."
    peak = f"{step} Peak memory in addition to what was allocated before the step."

    def measure_time(shape: Shape) -> Row:
        return compare_times(build_attentions(shape, setting.device), setting.seconds, setting.device)

    def measure_memory(shape: Shape) -> Row:
        return compare_peak_memory(build_attentions(shape, setting.device), setting.device)

    def cases(measure: Callable[[Shape], Row], chosen: tuple[Shape, ...]) -> dict[str, Callable[[], Row]]:
        return {str(shape): partial(measure, shape) for shape in chosen}

    speedups = [Ratio(f"{name}: times faster than {REFERENCE}", REFERENCE, name) for name in others]
    shares = [Ratio(f"{name}: share of {REFERENCE}", name, REFERENCE) for name in others]
    return [
        Table("Additive attention, time of a training step", step, cases(measure_time, shapes), speedups),
        Table("Additive attention, extra memory of a training step", peak, cases(measure_memory, shapes), shares, "MB"),
        Table("Additive attention, extra memory as Tk doubles", peak, cases(measure_memory, GROWING_SHAPES), shares, "MB"),
    ]


def build_attentions(shape: Shape, device: torch.device) -> list[Implementation]:
    """Build a training step with each implementation, with the same weights and inputs; the first one is `eager`."""
    torch.manual_seed(0)
    batch, queries, time, width, distribution = shape
    mask = build_right_padded_mask(draw_lengths(distribution, batch, time)).to(device)
    query, grad_context = torch.randn(2, batch, queries, width, device=device)
    memory = torch.randn(batch, time, width, device=device)
    weights = AdditiveAttention(query_size=width, memory_size=width, attention_size=width).to(device).state_dict()
    torch.nn.init.normal_(weights["energy"], std=width**-0.5)

    def run_step(module: AdditiveAttention) -> Results:
        step_query = query.clone().requires_grad_()
        step_memory = memory.clone().requires_grad_()
        context, attentions = module(step_query, step_memory, mask)
        context.backward(grad_context)
        gradients = {f"gradient of {name}": value.grad for name, value in module.named_parameters()}
        gradients |= {"gradient of query": step_query.grad, "gradient of memory": step_memory.grad}
        module.zero_grad()  # at the end of a run, so that each memory profile starts without gradients
        return {"context": context.detach(), "weights": attentions.detach(), **gradients}

    implementations = []
    for name in sorted(IMPLEMENTATIONS, key=lambda name: name != REFERENCE):
        module = AdditiveAttention(query_size=width, memory_size=width, attention_size=width, implementation=name).to(device)
        module.load_state_dict(weights)
        implementations.append(Implementation(name, partial(run_step, module)))
    return implementations
