"""Pictures of attention: the one place that needs matplotlib."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from hf_maskattn.inspection.attention_maps import AlignmentMap, AttentionMap
from hf_maskattn.model.remote_code import install_command

logger = logging.getLogger(__name__)

_MISSING = f"pictures need matplotlib: {install_command('viz')}"
_LONGEST_TOKEN = 12
_CELL, _SIGN, _GAP, _PAGE = 0.24, 0.09, 0.2, 12.0
"""Inches: a cell of an alignment, a sign of its labels, what is left free around, and the width that is filled first."""
_DPI = 150
_MOST_PIXELS = 100_000_000


def can_be_drawn(text: str) -> bool:
    """Tell whether the font of pictures has all signs of a text.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.font_manager import FontProperties, findfont
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return set(text) <= _signs_of(findfont(FontProperties()))


def draw_attention_maps(panels: Mapping[str, Sequence[AttentionMap]], path: str | Path) -> None:
    """Draw batches of attention maps one above the other: a cell for each token, darker for more weight, pads hatched.

    Args:
        panels: Title of each panel, and the maps of its batch.
        path: Where to write the picture; its ending gives the format.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
    except ImportError as error:
        raise ImportError(_MISSING) from error
    columns = max(len(maps[0].tokens) for maps in panels.values())
    rows = [len(maps) for maps in panels.values()]
    longest = max(len(_shown(token)) for maps in panels.values() for row in maps for token in row.tokens)
    width = columns * max(0.34, 0.11 * longest) + 1.4
    figure = Figure(figsize=(width, 0.42 * sum(rows) + 0.75 * len(rows)), layout="constrained")
    for axes, (title, maps) in zip(
        figure.subplots(len(rows), squeeze=False, height_ratios=rows)[:, 0], panels.items(), strict=True
    ):
        highest = max(float(row.weights.max()) for row in maps)
        for y, row in enumerate(maps):
            for x, (token, real, weight) in enumerate(zip(row.tokens, row.mask.tolist(), row.weights.tolist(), strict=True)):
                share = weight / highest if highest else 0.0
                axes.add_patch(
                    Rectangle(
                        (x, y),
                        1,
                        1,
                        facecolor=(1 - 0.85 * share, 1 - 0.6 * share, 1 - 0.25 * share),
                        edgecolor="0.75",
                        hatch=None if real else "////",
                        linewidth=0.6,
                    )
                )
                if real:
                    color = "white" if share > 0.6 else "black"
                    axes.text(x + 0.5, y + 0.5, _shown(token), ha="center", va="center", color=color, parse_math=False)
            axes.text(columns + 0.2, y + 0.5, f"{100 * row.mass_on_pads:.0f} % on pads", ha="left", va="center", fontsize=9)
        axes.set(xlim=(0, columns + 3.6), ylim=(len(maps), 0))
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_axis_off()
    figure.savefig(path, dpi=150)


def require_picture(path: str | Path) -> None:
    """Refuse a picture that cannot be drawn, before anything costly is done.

    Args:
        path: Where it is to be written.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the ending of the path is no format of pictures.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ImportError(_MISSING) from error
    formats = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in formats:
        raise ValueError(f"{path} has no ending of a picture: use one of {', '.join(f'.{name}' for name in sorted(formats))}.")


def draw_alignments(maps: Sequence[AlignmentMap], path: str | Path) -> None:
    """Draw a panel for each source and its output: what each output token attends to, in gray, 0 black and 1 white.

    The source runs from left to right, also where its script does not, the output from top to bottom. Labels are drawn in any
    of the installed fonts; a sign that none of them has is written as its code point, which is told in the log.

    Args:
        maps: The alignments.
        path: Where to write the picture; its ending gives the format.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no map, or the picture would be too large.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), figure 3.
    """
    require_picture(path)
    from matplotlib.figure import Figure

    if not maps:
        raise ValueError("There is no alignment to draw: no text has a visible character.")
    fonts, missing = _fonts({sign for found in maps for token in (*found.source, *found.target) for sign in _shown(token)})
    if missing:
        logger.warning(
            f"No installed font has {len(missing)} of the signs, such as {_as_code_points(min(missing), missing)}: they are "
            "drawn as code points. Install a font of their script, such as one of Noto."
        )
    labels = [
        [[_as_code_points(_shown(token), missing) for token in tokens] for tokens in (found.source, found.target)]
        for found in maps
    ]
    places, width, height = _arrange([_panel_size(*of_panel) for of_panel in labels])
    if width * height * _DPI**2 > _MOST_PIXELS:
        raise ValueError(
            f"The picture of {len(maps)} alignments would have {width * _DPI:.0f} x {height * _DPI:.0f} pixels: give fewer or "
            "shorter texts."
        )
    figure = Figure(figsize=(width, height), dpi=_DPI)
    for found, (source, target), (x, y) in zip(maps, labels, places, strict=True):
        left, top = x + _label_space(target), y + _label_space(source)
        columns, rows = len(source) * _CELL, len(target) * _CELL
        axes = figure.add_axes((left / width, 1 - (top + rows) / height, columns / width, rows / height))
        axes.imshow(found.weights.numpy(), cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        axes.set_xticks(range(len(source)), source)
        axes.set_yticks(range(len(target)), target)
        for label in axes.get_xticklabels():
            label.set_rotation(90 if len(label.get_text()) > 1 else 0)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set(family=fonts, fontsize=9, parse_math=False)
    heads = max(found.num_heads for found in maps)
    title = "attention of each output token (rows) to the source: 0 black, 1 white"
    mean = f", mean of {heads} heads" if heads > 1 else ""
    figure.text(_GAP / width, 1 - _GAP / height, title + mean, va="top")
    figure.savefig(path)


def _panel_size(source: list[str], target: list[str]) -> tuple[float, float]:
    """Measure a panel with its labels: width and height in inches."""
    return _label_space(target) + len(source) * _CELL + _GAP, _label_space(source) + len(target) * _CELL + _GAP


def _label_space(labels: list[str]) -> float:
    return _GAP + _SIGN * max(map(len, labels))


def _arrange(sizes: list[tuple[float, float]]) -> tuple[list[tuple[float, float]], float, float]:
    """Place panels in rows from the top left: a place for each, and the width and height of all with a line of text above."""
    places, x, y, row_height, width = [], 0.0, 2 * _GAP, 0.0, 6.0
    for panel_width, panel_height in sizes:
        if x and x + panel_width > _PAGE:
            x, y, row_height = 0.0, y + row_height, 0.0
        places.append((x, y))
        x, row_height = x + panel_width, max(row_height, panel_height)
        width = max(width, x)
    return places, width, y + row_height


def _fonts(signs: set[str]) -> tuple[list[str], set[str]]:
    """Find fonts that have all signs, the usual one first, and the signs that no installed font has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    usual = FontProperties()
    families, missing = list(usual.get_family()), signs - _signs_of(findfont(usual))
    for family in dict.fromkeys(font.name for font in fontManager.ttflist) if missing else ():
        # The last resort has a frame in the place of every sign.
        found = set() if "Last Resort" in family else missing & _signs_of(findfont(FontProperties(family=[family])))
        if found:
            families.append(family)
            missing = missing - found
    return families, missing


def _signs_of(font_file: str) -> set[str]:
    from matplotlib.font_manager import get_font

    return set(map(chr, get_font(font_file).get_charmap()))


def _as_code_points(text: str, missing: set[str]) -> str:
    return "".join(f"U+{ord(sign):04X}" if sign in missing else sign for sign in text)


def _shown(token: str) -> str:
    return token if len(token) <= _LONGEST_TOKEN else token[: _LONGEST_TOKEN - 1] + "…"
