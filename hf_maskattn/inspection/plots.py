"""Pictures of attention: the one place that needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hf_maskattn.inspection.attention_maps import AttentionMap

_MISSING = 'pictures need matplotlib: pip install "hf-maskattn[viz]"'
_LONGEST_TOKEN = 12


def can_be_drawn(text: str) -> bool:
    """Tell whether the font of pictures has all signs of a text.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.font_manager import FontProperties, findfont, get_font
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return {ord(sign) for sign in text} <= get_font(findfont(FontProperties())).get_charmap().keys()


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


def _shown(token: str) -> str:
    return token if len(token) <= _LONGEST_TOKEN else token[: _LONGEST_TOKEN - 1] + "…"
