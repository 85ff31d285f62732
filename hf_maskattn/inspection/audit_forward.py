"""Run a text model on padded batches, and compare its outputs at the tokens."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from hf_maskattn.inspection.audit_report import Finding, Verdict
from hf_maskattn.inspection.audit_rows import EXTRA_COLUMNS, Placement, TokenRows, pad_between, pad_right

TokenOutputs = Mapping[str, Sequence[torch.Tensor]]
"""For each output, a tensor per row: `[n, ...]` for its n tokens, without padding, or `[...]` for outputs of whole rows."""

Filler = Literal["padding", "random"]
"""Token ids at padding positions: the id that collators pad with, or random ids."""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Largest difference that is rounding, relative to the largest value of an output."""

_SEVERITY = [Verdict.EXACT, Verdict.WITHIN_TOLERANCE, Verdict.LEAKS, Verdict.NOT_FINITE]


def compare_outputs(
    expected: TokenOutputs, actual: TokenOutputs, per_token: frozenset[str] = frozenset(), scale: float | None = None
) -> Finding:
    """Compare the outputs of two forward passes.

    Args:
        expected: Outputs of the reference.
        actual: Outputs for the same rows in another batch.
        per_token: Names of the outputs whose first axis are tokens.
        scale: Value that tolerances are relative to; None selects the largest value of each output.

    Returns:
        The worst finding over all outputs.
    """
    return select_worst(
        [_compare_output(name, rows, actual[name], name in per_token, scale) for name, rows in expected.items()]
    )


def select_worst(findings: Sequence[Finding]) -> Finding:
    """Select the finding with the most severe verdict and, among these, the largest difference relative to its tolerance."""
    return max(findings, key=lambda finding: (_SEVERITY.index(finding.verdict), _relative_difference(finding)))


def build_finding(difference: float, tolerance: float, **location: str | int | None) -> Finding:
    """Build the finding of an absolute difference: exact, within tolerance, or a leak.

    Args:
        difference: The difference, at least 0.
        tolerance: The largest difference that is rounding.
        **location: `output`, `row` and `token` of the `Finding`.
    """
    verdict = Verdict.LEAKS if difference > tolerance else Verdict.WITHIN_TOLERANCE if difference else Verdict.EXACT
    return Finding(verdict, difference, tolerance, **location)  # type: ignore[arg-type]


def _compare_output(
    name: str, expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor], per_token: bool, scale: float | None
) -> Finding:
    if scale is None:
        scale = max(float(row.masked_fill(row.isneginf(), 0).abs().max()) for row in expected if row.numel())
    tolerance = TOLERANCES[expected[0].dtype] * scale
    worst = build_finding(0.0, tolerance, output=name, row=0)
    for index, (expected_row, actual_row) in enumerate(zip(expected, actual, strict=True)):
        # A NaN or an infinity in either row makes the difference not finite. Only minus infinity in both is equal: it is the
        # logit of a label that a CRF forbids.
        is_forbidden = (expected_row.isneginf() & actual_row.isneginf()).cpu()
        difference = (expected_row.cpu().double() - actual_row.cpu().double()).abs().masked_fill(is_forbidden, 0)
        if not difference.isfinite().all():
            token = _find_token(~difference.isfinite(), per_token)
            return Finding(Verdict.NOT_FINITE, output=name, row=index, token=token)
        largest = float(difference.max()) if difference.numel() else 0.0
        if largest > (worst.difference or 0.0):
            token = _find_token(difference == largest, per_token)
            worst = build_finding(largest, tolerance, output=name, row=index, token=token)
    return worst


def _find_token(condition: torch.Tensor, per_token: bool) -> int | None:
    return int(condition.nonzero()[0, 0]) if per_token else None


def _relative_difference(finding: Finding) -> float:
    if not finding.difference:
        return 0.0
    return finding.difference / finding.tolerance if finding.tolerance else float("inf")


def read_argument_names(model: PreTrainedModel) -> frozenset[str]:
    """Read the names of the arguments of the forward of a model, without `**kwargs`."""
    parameters = inspect.signature(model.forward).parameters
    return frozenset(name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD)


class AuditedModel:
    """A model in eval mode, with the rows that it is audited with. The seed is the one of random ids at padding positions.

    Attributes:
        argument_names: Names of the arguments of its forward.
        token_axes: For each output that is compared, the axes that index tokens, counted from the last; empty for outputs of
            whole rows.
        excluded_outputs: Outputs that are not compared, since they have no entry for each row of the batch.

    Raises:
        ValueError: If there is nothing to compare. Errors of the model are passed on.
    """

    def __init__(self, model: PreTrainedModel, rows: TokenRows, seed: int):
        self.model = model
        self.argument_names = read_argument_names(model)
        self._has_kwargs = bool(inspect.signature(model.forward).parameters.keys() - self.argument_names)
        self.rows = rows
        self._seed = seed
        options = {"use_cache": False, "return_dict": True}
        self._options = {name: value for name, value in options.items() if name in self.argument_names}
        optional_outputs = ["output_hidden_states"]
        # Other implementations than eager compute no attention weights, and warn if they are requested.
        if getattr(model.config, "_attn_implementation", None) in (None, "eager"):
            optional_outputs.append("output_attentions")
        self._options |= {name: True for name in optional_outputs if self._has_kwargs or name in self.argument_names}
        self.token_axes: dict[str, tuple[int, ...]] = {}
        self.excluded_outputs: list[str] = []
        self._find_token_axes()

    @property
    def embeddings(self) -> torch.nn.Module:
        """The embeddings of the padded ids."""
        encoder = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        return encoder.get_input_embeddings()

    @property
    def has_position_ids(self) -> bool:
        """Whether the model takes `position_ids`."""
        return "position_ids" in self.argument_names

    @property
    def per_token(self) -> frozenset[str]:
        """Names of the outputs with an entry per token."""
        return frozenset(name for name, axes in self.token_axes.items() if axes)

    @cached_property
    def reference(self) -> TokenOutputs:
        """Outputs for the rows as tokenizers pad them: after the tokens, to the longest row."""
        return self.compute(pad_right(self.rows.lengths))

    @cached_property
    def inner_padding(self) -> Placement:
        """Padding between tokens, so that a causal model reads it too; after the tokens if the model rejects that."""
        placement = pad_between(self.rows.lengths)
        try:
            self.compute(placement, with_positions=self.has_position_ids)
        except Exception:
            return pad_right(self.rows.lengths, EXTRA_COLUMNS)
        return placement

    def compare(self, expected: TokenOutputs, actual: TokenOutputs) -> Finding:
        """Compare the outputs of two forward passes over the same rows."""
        return compare_outputs(expected, actual, self.per_token)

    def build_inputs(
        self, rows: TokenRows, placement: Placement, *, filler: Filler = "padding", with_positions: bool = False
    ) -> dict[str, torch.Tensor]:
        """Build a padded batch of placed rows, as inputs of the model on its device.

        With positions it has `position_ids` that count the tokens of each row.
        """
        mask = placement.mask
        inputs = {
            name: placement.fill(values, torch.zeros(mask.shape, dtype=values[0].dtype))
            for name, values in rows.token_inputs.items()
        }
        background = torch.full(mask.shape, rows.pad_id)
        if filler == "random":
            generator = torch.Generator().manual_seed(self._seed)
            background = rows.ordinary_ids[torch.randint(len(rows.ordinary_ids), mask.shape, generator=generator)]
        inputs["input_ids"] = placement.fill(rows.token_inputs["input_ids"], background)
        if self._has_kwargs or "attention_mask" in self.argument_names:
            inputs["attention_mask"] = mask.long()
        if with_positions:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return {name: value.to(self.model.device) for name, value in {**inputs, **rows.row_inputs}.items()}

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the model; returns floating-point outputs by name, entries of tuples as `hidden_states[0]`."""
        outputs = self.model(**inputs, **self._options)
        named = outputs.items() if isinstance(outputs, Mapping) else [("output", outputs)]
        return {name: value for key, item in named for name, value in _flatten(key, item)}

    def select_tokens(self, outputs: Mapping[str, torch.Tensor], placement: Placement) -> TokenOutputs:
        """Select the entries of tokens from all outputs that are compared."""
        return {name: _select_token_columns(outputs[name], axes, placement) for name, axes in self.token_axes.items()}

    @torch.no_grad()
    def compute(self, placement: Placement, rows: TokenRows | None = None, **options: Any) -> TokenOutputs:
        """Compute the outputs at the tokens of placed rows, by default those of the audit; for options see `build_inputs`."""
        return self.select_tokens(self.forward(self.build_inputs(rows or self.rows, placement, **options)), placement)

    @torch.no_grad()
    def _find_token_axes(self) -> None:
        """Find the axes of each output that index tokens: those that grow with the number of columns."""
        longer = self.rows.extend_longest(EXTRA_COLUMNS)
        longer_outputs = self.forward(self.build_inputs(longer, pad_right(longer.lengths)))
        outputs = self.forward(self.build_inputs(self.rows, pad_right(self.rows.lengths)))
        for name, output in outputs.items():
            longer_shape = longer_outputs[name].shape if name in longer_outputs else torch.Size()
            axes = _compare_shapes(output.shape, longer_shape, len(self.rows.lengths), max(self.rows.lengths))
            if axes is None:
                self.excluded_outputs.append(name)
            else:
                self.token_axes[name] = axes
        if not self.token_axes:
            raise ValueError("The model must have an output with an entry for each row of the batch, got none.")


def _compare_shapes(shape: torch.Size, longer_shape: torch.Size, num_rows: int, width: int) -> tuple[int, ...] | None:
    """Find the axes that index tokens from the shapes of an output for all rows, and for one row of more columns.

    Returns:
        The axes that grew by `EXTRA_COLUMNS`, counted from the last, so that they are valid in a row of the output too. None
        if the first axis does not index rows, or another axis changed.
    """
    if len(shape) != len(longer_shape) or (shape[0], longer_shape[0]) != (num_rows, 1):
        return None
    sizes = list(zip(shape, longer_shape, strict=True))[1:]
    changed = [axis for axis, (size, longer_size) in enumerate(sizes) if size != longer_size]
    if any(sizes[axis] != (width, width + EXTRA_COLUMNS) for axis in changed):
        return None
    return tuple(axis - len(sizes) for axis in changed)


def _flatten(name: str, item: object) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(item, torch.Tensor):
        if item.is_floating_point() and item.dim() > 0:
            yield name, item
    elif isinstance(item, (tuple, list)):
        for index, part in enumerate(item):
            yield from _flatten(f"{name}[{index}]", part)


def _select_token_columns(output: torch.Tensor, axes: tuple[int, ...], placement: Placement) -> list[torch.Tensor]:
    selected = []
    for row, columns in zip(output, placement.columns, strict=True):
        for axis in axes:
            row = row.index_select(axis, columns.to(row.device))
        # Tokens become the first axis, by which a difference is located; of two such axes, the one of the queries.
        selected.append(row.movedim(axes[0], 0) if axes else row)
    return selected
