"""Tables of additive attention: time and extra memory of a training step under each implementation."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from hf_maskattn.benchmark.lengths import draw_lengths, right_padded_mask
from hf_maskattn.benchmark.memory import weigh
from hf_maskattn.benchmark.plan import Plan, Setting
from hf_maskattn.benchmark.report import Ratio
from hf_maskattn.benchmark.timing import race
from hf_maskattn.benchmark.ways import Results, Way
from hf_maskattn.model.attention import IMPLEMENTATIONS, AdditiveAttention

REFERENCE = "eager"


class Shape(NamedTuple):
    """Size of a batch: rows, queries, columns of the memory, width of everything, lengths of the rows."""

    batch: int
    queries: int
    time: int
    width: int
    spread: str

    def __str__(self) -> str:
        return f"B{self.batch} Tq{self.queries} Tk{self.time} A{self.width}, {self.spread}"


QUICK_SHAPES = (Shape(4, 256, 256, 256, "equal"), Shape(64, 1, 64, 128, "uniform"))
FULL_SHAPES = (
    Shape(4, 256, 256, 256, "equal"),
    Shape(4, 256, 256, 256, "uniform"),
    Shape(16, 64, 64, 128, "uniform"),
    Shape(64, 1, 64, 128, "uniform"),
    Shape(64, 1, 512, 128, "uniform"),
)
GROWING_SHAPES = tuple(Shape(2, 64, time, 128, "equal") for time in (128, 256, 512, 1024))


def attention_plans(setting: Setting) -> list[Plan]:
    """Plan three tables: time, extra memory, and extra memory as the memory grows longer."""
    others = [name for name in IMPLEMENTATIONS if name != REFERENCE]
    shapes = QUICK_SHAPES if setting.quick else FULL_SHAPES
    step = "Forward and backward of one head. Case: B rows, Tq queries, Tk columns, width A of everything, lengths."
    peak = f"{step} Most bytes held beyond what was there before the step."

    def cases(measure: Callable, chosen: tuple[Shape, ...]) -> dict[str, Callable]:
        return {str(shape): partial(measure, shape) for shape in chosen}

    def timed(shape: Shape):
        return race(attention_ways(shape, setting.device), setting.seconds, setting.device)

    def weighed(shape: Shape):
        return weigh(attention_ways(shape, setting.device), setting.device)

    faster = [Ratio(f"{name}: times faster than {REFERENCE}", REFERENCE, name) for name in others]
    shares = [Ratio(f"{name}: share of {REFERENCE}", name, REFERENCE) for name in others]
    return [
        Plan("Additive attention, time of a training step", step, cases(timed, shapes), faster),
        Plan("Additive attention, extra memory of a training step", peak, cases(weighed, shapes), shares, "MB"),
        Plan("Additive attention, extra memory as Tk doubles", peak, cases(weighed, GROWING_SHAPES), shares, "MB"),
    ]


def attention_ways(shape: Shape, device: torch.device) -> list[Way]:
    """Prepare a training step under each implementation, with the same weights and inputs, `eager` first."""
    torch.manual_seed(0)
    batch, queries, time, width, spread = shape
    mask = right_padded_mask(draw_lengths(spread, batch, time)).to(device)
    query, gradient = torch.randn(2, batch, queries, width, device=device)
    memory = torch.randn(batch, time, width, device=device)
    weights = AdditiveAttention(query_size=width, memory_size=width, attention_size=width).to(device).state_dict()
    torch.nn.init.normal_(weights["energy"], std=width**-0.5)

    def step(module: AdditiveAttention) -> Results:
        inputs = [tensor.clone().requires_grad_() for tensor in (query, memory)]
        context, attentions = module(*inputs, mask)
        context.backward(gradient)
        gradients = {f"gradient of {name}": value.grad for name, value in module.named_parameters()}
        gradients |= {"gradient of query": inputs[0].grad, "gradient of memory": inputs[1].grad}
        module.zero_grad()  # here, so that a profile of memory begins without gradients
        return {"context": context.detach(), "weights": attentions.detach(), **gradients}

    ways = []
    for name in sorted(IMPLEMENTATIONS, key=lambda name: name != REFERENCE):
        module = AdditiveAttention(query_size=width, memory_size=width, attention_size=width, implementation=name).to(device)
        module.load_state_dict(weights)
        ways.append(Way(name, partial(step, module)))
    return ways
