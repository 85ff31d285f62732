"""Runs any text model over rows placed among pads, and reads what it says at the real tokens."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from hf_maskattn.inspection.audit_report import Finding, Verdict
from hf_maskattn.inspection.audit_rows import EXTRA_PADS, Placement, TokenRows, padded_right, scattered

Reading = Mapping[str, Sequence[torch.Tensor]]
"""For each output, what it holds of each row: `[n, ...]` over its real tokens, or `[...]` for the row as a whole."""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Difference between two ways of computing the same, as a share of the largest value of an output."""

_SEVERITY = [Verdict.EXACT, Verdict.WITHIN_TOLERANCE, Verdict.LEAKS, Verdict.NOT_FINITE]


def compare(expected: Reading, found: Reading, per_token: frozenset[str] = frozenset(), scale: float | None = None) -> Finding:
    """Compare two readings output by output.

    Args:
        expected: What the model says otherwise.
        found: What it says now, of the same rows.
        per_token: Names of the outputs whose first axis counts tokens.
        scale: Size by which tolerances go; None takes the largest value of each output.

    Returns:
        The worst finding over all outputs.
    """
    return worst([_compare_output(name, rows, found[name], name in per_token, scale) for name, rows in expected.items()])


def worst(findings: Sequence[Finding]) -> Finding:
    """Choose the finding with the gravest verdict, among these the one that is furthest beyond its tolerance.

    Args:
        findings: At least one, each of a check that ran.

    Returns:
        One of them.
    """
    return max(findings, key=lambda finding: (_SEVERITY.index(finding.verdict), _excess(finding)))


def judge(difference: float, tolerance: float, **place: str | int | None) -> Finding:
    """Give a difference its verdict.

    Args:
        difference: Absolute, at least 0.
        tolerance: What is allowed.
        **place: Where it sits: `output`, `row` and `token` of a `Finding`.

    Returns:
        The finding: exact, within tolerance, or a leak.
    """
    verdict = Verdict.LEAKS if difference > tolerance else Verdict.WITHIN_TOLERANCE if difference else Verdict.EXACT
    return Finding(verdict, difference, tolerance, **place)  # type: ignore[arg-type]


def _compare_output(
    name: str, expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], per_token: bool, scale: float | None
) -> Finding:
    if scale is None:
        scale = max(float(row.abs().max()) for row in expected if row.numel())
    tolerance = TOLERANCES[expected[0].dtype] * scale
    largest = 0.0
    place: tuple[int, int | None] = (0, None)
    for number, (row, other) in enumerate(zip(expected, found, strict=True)):
        # A NaN or an infinity on either side makes the difference one as well.
        difference = (row.cpu().double() - other.cpu().double()).abs()
        if not difference.isfinite().all():
            where = _token(~difference.isfinite(), per_token)
            return Finding(Verdict.NOT_FINITE, output=name, row=number, token=where)
        if difference.numel() and float(difference.max()) > largest:
            largest, place = float(difference.max()), (number, _token(difference == difference.max(), per_token))
    return judge(largest, tolerance, output=name, row=place[0], token=place[1])


def _token(found: torch.Tensor, per_token: bool) -> int | None:
    return int(found.nonzero()[0, 0]) if per_token else None


def _excess(finding: Finding) -> float:
    if not finding.difference:
        return 0.0
    return finding.difference / finding.tolerance if finding.tolerance else float("inf")


@dataclass(frozen=True)
class ForwardSignature:
    """What the forward of a model takes.

    Attributes:
        names: Inputs that it names.
        takes_anything: Whether it has `**kwargs`.
    """

    names: frozenset[str]
    takes_anything: bool


def signature_of(model: PreTrainedModel) -> ForwardSignature:
    """Read the signature of a model's forward.

    Args:
        model: The model.

    Returns:
        What it takes.
    """
    parameters = inspect.signature(model.forward).parameters
    return ForwardSignature(
        frozenset(name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD),
        any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()),
    )


class AuditedModel:
    """A model with the rows that it is audited on.

    Args:
        model: The model, in eval mode.
        signature: What its forward takes.
        rows: The rows.
        seed: Of the junk under the mask.

    Attributes:
        axes: For each output that is compared, the axes that count tokens, from the last; none for what it says of rows.
        left_out: Outputs that cannot be compared, since they have no row for each row of the batch.

    Raises:
        ValueError: If there is nothing to compare. Errors of the model are passed on.
    """

    def __init__(self, model: PreTrainedModel, signature: ForwardSignature, rows: TokenRows, seed: int):
        self.model = model
        self.signature = signature
        self.rows = rows
        self._seed = seed
        self._options: dict[str, Any] = {}
        if "use_cache" in signature.names:
            self._options["use_cache"] = False
        if "return_dict" in signature.names:
            self._options["return_dict"] = True
        wanted = ["output_hidden_states"]
        # Other implementations than eager compute no weights, and warn when they are asked for them.
        if getattr(model.config, "_attn_implementation", None) in (None, "eager"):
            wanted.append("output_attentions")
        self._options |= {name: True for name in wanted if signature.takes_anything or name in signature.names}
        self.axes: dict[str, tuple[int, ...]] = {}
        self.left_out: list[str] = []
        self._find_token_axes()

    @property
    def embeddings(self) -> torch.nn.Module:
        """What turns the ids that are padded into vectors."""
        reader = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        return reader.get_input_embeddings()

    @property
    def takes_positions(self) -> bool:
        """Whether positions can be told to the model."""
        return "position_ids" in self.signature.names

    @property
    def per_token(self) -> frozenset[str]:
        """Names of the outputs whose readings count tokens along their first axis."""
        return frozenset(name for name, axes in self.axes.items() if axes)

    @cached_property
    def home(self) -> Reading:
        """What the model says of the rows as a tokenizer pads them: behind the tokens, to the longest row."""
        return self.read(padded_right(self.rows.lengths))

    @cached_property
    def pads_within(self) -> Placement:
        """Pads between tokens, so that a model that reads one way meets them; behind them, if it accepts no others."""
        placement = scattered(self.rows.lengths)
        try:
            self.read(placement, positions=self.takes_positions)
        except Exception:
            return padded_right(self.rows.lengths, EXTRA_PADS)
        return placement

    def compare(self, expected: Reading, found: Reading) -> Finding:
        """Compare two readings of the same rows."""
        return compare(expected, found, self.per_token)

    def inputs(
        self,
        rows: TokenRows,
        placement: Placement,
        *,
        pads: Literal["padding", "junk"] = "padding",
        positions: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Pad rows.

        Args:
            rows: The rows.
            placement: Where their tokens go.
            pads: What stands at pads: the pad id, or random ordinary ids.
            positions: Whether to count positions over the real tokens of each row.

        Returns:
            Inputs of the model, on its device.
        """
        mask = placement.mask
        inputs = {
            name: placement.fill(values, torch.zeros(mask.shape, dtype=values[0].dtype))
            for name, values in rows.by_token.items()
        }
        background = torch.full(mask.shape, rows.pad_id)
        if pads == "junk":
            generator = torch.Generator().manual_seed(self._seed)
            background = rows.ordinary_ids[torch.randint(len(rows.ordinary_ids), mask.shape, generator=generator)]
        inputs["input_ids"] = placement.fill(rows.by_token["input_ids"], background)
        if self.signature.takes_anything or "attention_mask" in self.signature.names:
            inputs["attention_mask"] = mask.long()
        if positions:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return {name: value.to(self.model.device) for name, value in {**inputs, **rows.by_row}.items()}

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the model: its floating-point outputs by name, those of tuples as `hidden_states[0]`."""
        outputs = self.model(**inputs, **self._options)
        named = outputs.items() if isinstance(outputs, Mapping) else [("output", outputs)]
        return {name: value for key, item in named for name, value in _flatten(key, item)}

    def read_outputs(self, outputs: Mapping[str, torch.Tensor], placement: Placement) -> Reading:
        """Keep of the outputs what they hold of real tokens."""
        return {name: _at_token_mask(outputs[name], axes, placement) for name, axes in self.axes.items()}

    @torch.no_grad()
    def read(self, placement: Placement, rows: TokenRows | None = None, **options: Any) -> Reading:
        """Run the model over placed rows (those of the audit unless others are given) and read it; see `inputs`."""
        return self.read_outputs(self.run(self.inputs(rows or self.rows, placement, **options)), placement)

    @torch.no_grad()
    def _find_token_axes(self) -> None:
        """Find which axes of each output count tokens: those that grow with a row as the row grows."""
        grown_row = self.rows.longest_grown(EXTRA_PADS)
        grown = self.run(self.inputs(grown_row, padded_right(grown_row.lengths)))
        for name, output in self.run(self.inputs(self.rows, padded_right(self.rows.lengths))).items():
            shape = grown[name].shape if name in grown else torch.Size()
            axes = _token_axes(output.shape, shape, len(self.rows.lengths), max(self.rows.lengths))
            if axes is None:
                self.left_out.append(name)
            else:
                self.axes[name] = axes
        if not self.axes:
            raise ValueError("no output has a row for each row of the batch.")


def _token_axes(shape: torch.Size, grown: torch.Size, rows: int, width: int) -> tuple[int, ...] | None:
    """Compare the shapes of an output over some rows, and over one row that is wider by `EXTRA_PADS` tokens.

    Returns:
        The axes that grew as much, counted from the last, so that they are the same in a row of the output. None if there is
        no axis of rows, or the shape changed in another way.
    """
    if len(shape) != len(grown) or (shape[0], grown[0]) != (rows, 1):
        return None
    sizes = list(zip(shape, grown, strict=True))[1:]
    changed = [axis for axis, (size, other) in enumerate(sizes) if size != other]
    if any(sizes[axis] != (width, width + EXTRA_PADS) for axis in changed):
        return None
    return tuple(axis - len(sizes) for axis in changed)


def _flatten(name: str, item: object) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(item, torch.Tensor):
        if item.is_floating_point() and item.dim() > 0:
            yield name, item
    elif isinstance(item, (tuple, list)):
        for index, part in enumerate(item):
            yield from _flatten(f"{name}[{index}]", part)


def _at_token_mask(output: torch.Tensor, axes: tuple[int, ...], placement: Placement) -> list[torch.Tensor]:
    readings = []
    for row, columns in zip(output, placement.columns, strict=True):
        for axis in axes:
            row = row.index_select(axis, columns.to(row.device))
        # Tokens come first, so that a difference can be told by its token; of two such axes, the querying one.
        readings.append(row.movedim(axes[0], 0) if axes else row)
    return readings
