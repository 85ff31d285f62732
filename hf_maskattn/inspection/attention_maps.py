"""Attention weights of a model for texts, with their tokens, and plots of them. Plots need matplotlib."""

import logging
import math
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.model.remote_code import install_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_MAX_TOKEN_LENGTH = 12
_DPI = 150
_CELL_SIZE, _CHARACTER_WIDTH, _MARGIN, _PAGE_WIDTH = 0.24, 0.09, 0.2, 1600 / _DPI
"""Inches: size of a cell of an alignment, width of a character of its labels, margin, and width at which plots are wrapped."""
_NOTE_WIDTH = 1.4
"""Inches: width of the note at the end of a row of an attention map."""
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one text in a padded batch.

    Attributes:
        tokens: The tokens of its row, with padding.
        mask: `[T]`, bool, True = token.
        weights: `[T]`, float, mean over heads.
    """

    tokens: list[str]
    mask: torch.Tensor
    weights: torch.Tensor

    @property
    def weight_on_padding(self) -> float:
        """Sum of the weights of padding positions."""
        return float(self.weights[~self.mask].sum())

    @property
    def mass_on_pads(self) -> float:
        """Deprecated alias of `weight_on_padding`."""
        warnings.warn("`mass_on_pads` is deprecated. Use `weight_on_padding`.", FutureWarning, stacklevel=2)
        return self.weight_on_padding


@torch.no_grad()
def attention_maps(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, ignore_mask: bool = False
) -> list[AttentionMap]:
    """Compute the attention weights for a batch of texts, padded to the longest.

    Args:
        model: An encoder of this package.
        tokenizer: Its tokenizer.
        texts: The texts.
        ignore_mask: Whether to pass a mask of ones, so that the model treats padding as tokens.

    Returns:
        A map for each text.
    """
    inputs = tokenizer(list(texts), padding=True, return_tensors="pt").to(model.device)
    mask = inputs["attention_mask"].bool()
    if ignore_mask:
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    was_training = model.training
    attentions = model.eval()(**inputs, output_attentions=True).attentions[0]  # [B, heads, 1, T]
    model.train(was_training)
    weights = attentions[:, :, 0].float().mean(dim=1).cpu()  # [B, T]
    tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in inputs["input_ids"].tolist()]
    return [AttentionMap(*row) for row in zip(tokens, mask.cpu(), weights, strict=True)]


@dataclass(frozen=True)
class AlignmentMap:
    """The alignment of a source with its generated target.

    Attributes:
        source: The n tokens of the source, with its end token.
        target: The m tokens of the target, up to its end token.
        weights: `[m, n]`, float: attention weights of each target token on the source, mean over heads.
        num_heads: Number of heads.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), figure 3.
    """

    source: list[str]
    target: list[str]
    weights: torch.Tensor
    num_heads: int


@torch.no_grad()
def alignment_maps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Mapping[str, torch.Tensor],
    sequences: torch.Tensor,
) -> list[AlignmentMap]:
    """Compute the alignments of sources with generated targets, from the last layer that attends to the source.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer.
        inputs: `input_ids` and `attention_mask` `[B, Tk]` of the sources.
        sequences: `[B, T]`, the targets as `generate()` returns them.

    Returns:
        A map for each source.

    Raises:
        ValueError: If the model returns no cross-attention weights.
    """
    was_training = model.training
    outputs = model.eval()(**inputs, decoder_input_ids=sequences[:, :-1], output_attentions=True, use_cache=False)
    model.train(was_training)
    attentions = outputs.get("cross_attentions")
    if not attentions or attentions[-1] is None:
        raise ValueError(f"`model` must return `cross_attentions`, got {type(model).__name__}.")
    num_heads = attentions[-1].shape[1]
    weights = attentions[-1].float().mean(dim=1).cpu()  # [B, T - 1, Tk]
    source_ids, mask = inputs["input_ids"].cpu(), inputs["attention_mask"].bool().cpu()
    maps = []
    for row, target_ids in enumerate(sequences[:, 1:].tolist()):
        length = target_length(target_ids, model.generation_config)
        maps.append(
            AlignmentMap(
                source=readable_tokens(tokenizer, source_ids[row, mask[row]].tolist()),
                target=readable_tokens(tokenizer, target_ids[:length]),
                weights=weights[row, :length, mask[row]],
                num_heads=num_heads,
            )
        )
    return maps


def readable_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Decode each token id by itself, so that tokens of a byte-level tokenizer are readable.

    A space, or a token that is not a complete character, is returned as the tokenizer stores it.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    decoded = [tokenizer.decode([id_], clean_up_tokenization_spaces=False) for id_ in ids]
    return [text if text.strip() and "\ufffd" not in text else token for text, token in zip(decoded, tokens, strict=True)]


def target_length(ids: list[int], config: GenerationConfig) -> int:
    """Count the tokens up to the end token or, if there is none, without the padding at the end."""
    eos_ids = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    for length, id_ in enumerate(ids, start=1):
        if id_ in eos_ids:
            return length
    return max((length for length, id_ in enumerate(ids, start=1) if id_ != config.pad_token_id), default=0)


def _require_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise ImportError(f"Plots need matplotlib: {install_command('viz')}")


def find_missing_characters(text: str) -> set[str]:
    """Return the visible characters of a text that no installed font has.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    _require_matplotlib()
    return {character for character in _select_fonts(set(text))[1] if character.isprintable()}


def draw_attention_maps(panels: Mapping[str, Sequence[AttentionMap]], path: str | Path) -> None:
    """Draw batches of attention maps below each other: a cell per token, darker for larger weights, padding hatched.

    Rows that are wider than a page of 1,600 pixels are continued on further lines. Labels use any of the installed fonts, as
    those of `draw_alignments` do.

    Args:
        panels: The maps of each batch, by the title of its panel.
        path: File to write; its suffix selects the format.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    _require_matplotlib()
    from matplotlib.figure import Figure

    tokens = {_shorten(token) for maps in panels.values() for row in maps for token in row.tokens}
    fonts, missing = choose_fonts("".join(tokens))
    cell = max(0.34, 0.11 * max(len(replace_missing(token, missing)) for token in tokens))
    longest = max(len(maps[0].tokens) for maps in panels.values())
    columns = min(longest, max(1, int((_PAGE_WIDTH - _NOTE_WIDTH) / cell)))
    heights = [len(maps) * _row_height(maps, columns) for maps in panels.values()]
    title_width = _CHARACTER_WIDTH * max(map(len, panels))
    size = (max(columns * cell + _NOTE_WIDTH, title_width), 0.42 * sum(heights) + 0.75 * len(heights))
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, maps) in zip(all_axes, panels.items(), strict=True):
        _draw_panel(axes, maps, columns, {"family": fonts, "parse_math": False}, missing)
        row_height = _row_height(maps, columns)
        axes.set(xlim=(0, size[0] / cell), ylim=(len(maps) * row_height, 0))
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_axis_off()
        for y, row in enumerate(maps):
            note = f"{100 * row.weight_on_padding:.0f} % on padding"
            axes.text(columns + 0.2, y * row_height + 0.5, note, ha="left", va="center", fontsize=9)
    figure.savefig(path, dpi=_DPI)


def _row_height(maps: Sequence[AttentionMap], columns: int) -> float:
    """Return the number of lines of each map of a panel, with a gap below if there are several."""
    lines = math.ceil(len(maps[0].tokens) / columns)
    return lines if lines == 1 else lines + 0.5


def _draw_panel(axes, maps: Sequence[AttentionMap], columns: int, style: dict, missing: set[str]) -> None:
    from matplotlib.patches import Rectangle

    highest = max(float(row.weights.max()) for row in maps)
    row_height = _row_height(maps, columns)
    for number, row in enumerate(maps):
        for position, token in enumerate(row.tokens):
            x, y = position % columns, number * row_height + position // columns
            is_token = bool(row.mask[position])
            darkness = float(row.weights[position]) / highest if highest else 0.0
            color = (1 - 0.85 * darkness, 1 - 0.6 * darkness, 1 - 0.25 * darkness)
            hatch = None if is_token else "////"
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="0.75", hatch=hatch, linewidth=0.6))
            if is_token:
                text_color = "white" if darkness > 0.6 else "black"
                label = replace_missing(_shorten(token), missing)
                axes.text(x + 0.5, y + 0.5, label, ha="center", va="center", color=text_color, **style)


def validate_plot_path(path: str | Path) -> None:
    """Validate the file of a plot, before expensive computations.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the suffix of the path is not a format of matplotlib.
    """
    _require_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in formats:
        suffixes = ", ".join(f".{name}" for name in sorted(formats))
        raise ValueError(f"The suffix of a plot must be one of {suffixes}, got {path}.")


def draw_alignments(maps: Sequence[AlignmentMap], path: str | Path, note: str = "") -> None:
    """Draw the alignment of each source with its target in gray, from weight 0 in black to weight 1 in white.

    The source runs from left to right, also for right-to-left scripts, and the target from top to bottom. Labels use any of the
    installed fonts; characters without a font are drawn as code points, with a warning.

    Args:
        maps: The alignments. Those without a target are left out.
        path: File to write; its suffix selects the format.
        note: Text to add to the title.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no map, or the plot would be too large.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), figure 3.
    """
    validate_plot_path(path)
    from matplotlib.figure import Figure

    maps = [alignment for alignment in maps if alignment.target]
    if not maps:
        raise ValueError("There must be at least one alignment to draw, got none. Pass a text with a visible character.")
    tokens = {_shorten(token) for alignment in maps for token in (*alignment.source, *alignment.target)}
    fonts, missing = choose_fonts("".join(tokens))

    def label(tokens: Sequence[str]) -> list[str]:
        return [replace_missing(_shorten(token), missing) for token in tokens]

    labels = [(label(alignment.source), label(alignment.target)) for alignment in maps]
    sizes = []  # of each panel with its labels
    for source, target in labels:
        panel_width = _measure_labels(target) + len(source) * _CELL_SIZE + _MARGIN
        sizes.append((panel_width, _measure_labels(source) + len(target) * _CELL_SIZE + _MARGIN))
    positions, width, height = _arrange_panels(sizes)
    if width * height * _DPI**2 > _MAX_PIXELS:
        raise ValueError(
            f"A plot must have at most {_MAX_PIXELS} pixels, got {width * _DPI:.0f} x {height * _DPI:.0f} for {len(maps)} "
            "alignments. Pass fewer or shorter texts."
        )
    figure = Figure(figsize=(width, height), dpi=_DPI)
    for alignment, (source, target), (x, y) in zip(maps, labels, positions, strict=True):
        left, top = x + _measure_labels(target), y + _measure_labels(source)
        panel_width, panel_height = len(source) * _CELL_SIZE, len(target) * _CELL_SIZE
        bottom = 1 - (top + panel_height) / height
        axes = figure.add_axes((left / width, bottom, panel_width / width, panel_height / height))
        _draw_alignment(axes, alignment, source, target, fonts)
    num_heads = max(alignment.num_heads for alignment in maps)
    title = "Attention weights of generated tokens (rows) on source tokens: 0 black, 1 white"
    mean = f", mean of {num_heads} heads" if num_heads > 1 else ""
    figure.text(_MARGIN / width, 1 - _MARGIN / height, title + mean + note, va="top")
    figure.savefig(path)


def _draw_alignment(axes, alignment: AlignmentMap, source: list[str], target: list[str], fonts: list[str]) -> None:
    axes.imshow(alignment.weights.numpy(), cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.set_xticks(range(len(source)), source)
    axes.set_yticks(range(len(target)), target)
    for label in axes.get_xticklabels():
        label.set_rotation(90 if len(label.get_text()) > 1 else 0)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(family=fonts, fontsize=9, parse_math=False)


def _measure_labels(labels: list[str]) -> float:
    return _MARGIN + _CHARACTER_WIDTH * max(map(len, labels))


def _arrange_panels(sizes: list[tuple[float, float]]) -> tuple[list[tuple[float, float]], float, float]:
    """Arrange panels in rows from the top left, below a line of text.

    Returns:
        The position of each panel, and the width and height of the figure, in inches.
    """
    positions = []
    x, y, row_height, width = 0.0, 2 * _MARGIN, 0.0, 6.0
    for panel_width, panel_height in sizes:
        if x and x + panel_width > _PAGE_WIDTH:
            x, y, row_height = 0.0, y + row_height, 0.0
        positions.append((x, y))
        x += panel_width
        row_height = max(row_height, panel_height)
        width = max(width, x)
    return positions, width, y + row_height


def choose_fonts(text: str) -> tuple[list[str], set[str]]:
    """Choose the fonts of a plot with the characters of a text, and warn of characters that no installed font has.

    Returns:
        Font families that have all other characters, the default first, and the characters without a font.
    """
    fonts, missing = _select_fonts(set(text))
    visible = {character for character in missing if character.isprintable()}
    if visible:
        logger.warning(f"{describe_missing(visible)} They are drawn as code points.")
    return fonts, missing


_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")


def describe_missing(characters: set[str]) -> str:
    """Describe characters without a font in a sentence: their scripts, and a package with fonts of them."""
    scripts = sorted({unicodedata.name(character, "unnamed").split()[0] for character in characters})
    packages = sorted({"fonts-noto-cjk" if script.startswith(_CJK) else "fonts-noto-core" for script in scripts})
    names = ", ".join(script if script == "CJK" else script.capitalize() for script in scripts)
    return (
        f"No installed font has {len(characters)} of the characters ({names}), such as U+{ord(min(characters)):04X}. Install a "
        f"font of their script, such as Noto (Debian and Ubuntu: apt install {' '.join(packages)})."
    )


def new_figure(width: float, height: float) -> "Figure":
    """Create a figure without a display, of a width and height in pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)


_REGULAR = 400


def _select_fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """Select font families that have all characters, the default first; returns them and the characters without a font."""
    from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager

    default = FontProperties()
    families, missing = list(default.get_family()), characters - _read_characters(findfont(default))
    if missing:
        # The list of matplotlib is cached, without fonts that were installed later.
        for file in sorted({*findSystemFonts()} - {font.fname for font in fontManager.ttflist}):
            with suppress(OSError, RuntimeError):  # a format that it does not read
                fontManager.addfont(file)
    for font in fontManager.ttflist if missing else ():
        # "Last Resort" draws a frame for any character. matplotlib logs a warning for a family without regular weight.
        if "Last Resort" in font.name or font.style != "normal" or font.weight != _REGULAR:
            continue
        available = missing & _read_characters(font.fname)
        if available:
            families.append(font.name)
            missing -= available
    return families, missing


def _read_characters(font_file: str) -> set[str]:
    from matplotlib.font_manager import get_font

    return set(map(chr, get_font(font_file).get_charmap()))


def replace_missing(text: str, missing: set[str]) -> str:
    """Write characters without a font as code points."""
    return "".join(f"U+{ord(character):04X}" if character in missing else character for character in text)


def _shorten(token: str) -> str:
    return token if len(token) <= _MAX_TOKEN_LENGTH else token[: _MAX_TOKEN_LENGTH - 1] + "…"
