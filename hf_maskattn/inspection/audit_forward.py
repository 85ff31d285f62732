"""Runs any text model over rows placed among pads, and reads what it says at the real tokens."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from hf_maskattn.inspection.audit_comparison import Reading, compare
from hf_maskattn.inspection.audit_placement import EXTRA_PADS, Placement, padded_right, scattered
from hf_maskattn.inspection.audit_report import Finding
from hf_maskattn.inspection.audit_rows import TokenRows


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
        return {name: _at_real_tokens(outputs[name], axes, placement) for name, axes in self.axes.items()}

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


def _at_real_tokens(output: torch.Tensor, axes: tuple[int, ...], placement: Placement) -> list[torch.Tensor]:
    readings = []
    for row, columns in zip(output, placement.columns, strict=True):
        for axis in axes:
            row = row.index_select(axis, columns.to(row.device))
        # Tokens come first, so that a difference can be told by its token; of two such axes, the querying one.
        readings.append(row.movedim(axes[0], 0) if axes else row)
    return readings
