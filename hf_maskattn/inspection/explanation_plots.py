"""Plots of explanations: the text, with each token on the color of its score. They need matplotlib."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hf_maskattn.inspection.attention_maps import choose_fonts, new_figure, replace_missing, validate_plot_path
from hf_maskattn.inspection.explanations import Explanation, View, diverging_color, largest_score, text_color, to_visible

_WIDTH, _MARGIN, _LINE, _TITLE_LINE, _PADDING = 1600, 30, 52, 46, 9
"""Pixels: width of a plot, its margin, height of a line of tokens and of a title, and space around the text of a token."""

_MAX_HEIGHT = 20_000
_MAX_TITLE, _MAX_TOKEN = 120, 60


class _Box(NamedTuple):
    """A token at its place, in pixels from the top left."""

    x: float
    y: float
    width: float
    text: str
    share: float


def draw_explanations(explanations: Sequence[Explanation], path: str | Path) -> None:
    """Draw texts with each token on the color of its score: orange for the output, blue against it, white for 0.

    Each predicted output has its own panel and its own scale, which its title states. A text is wrapped at 1,600 pixels, and
    runs from the right if its first letter does. Characters without an installed font are drawn as code points, with a warning.

    Args:
        explanations: The explanations.
        path: File to write; its suffix selects the format.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no explanation, or the plot would be higher than 20,000 pixels.
    """
    validate_plot_path(path)
    panels = [(explanation, view) for explanation in explanations for view in explanation.views()]
    if not panels:
        raise ValueError("There must be at least one prediction to draw, got none. Pass a text with a visible character.")
    titles_text = "".join(_title(explanation, view) for explanation, view in panels)
    fonts, missing = choose_fonts("".join(_write(token) for item, _ in panels for token in item.tokens) + titles_text)
    figure = new_figure(_WIDTH, _LINE)
    style: dict[str, Any] = {"family": fonts, "fontsize": 11, "parse_math": False, "va": "center"}
    y = float(_MARGIN)
    boxes: list[_Box] = []
    titles: list[tuple[float, str]] = []
    for explanation, view in panels:
        titles.append((y + _TITLE_LINE / 2, replace_missing(_title(explanation, view), missing)))
        texts = [replace_missing(_write(token), missing) for token in explanation.tokens]
        widths = []
        for text in texts:
            artist = figure.text(0, 0, text, **style)
            widths.append(artist.get_window_extent().width + 2 * _PADDING)
            artist.remove()
        shares = (view.scores / largest_score(view.scores)).tolist()
        placed, y = _place(texts, widths, shares, y + _TITLE_LINE, _runs_from_right(explanation.text))
        boxes += placed
        y += _MARGIN
    if y > _MAX_HEIGHT:
        raise ValueError(f"A plot must be at most {_MAX_HEIGHT:,} pixels high, got {y:,.0f}. Pass fewer or shorter texts.")
    figure.set_size_inches(_WIDTH / figure.dpi, y / figure.dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(y, 0))
    axes.set_axis_off()
    for center, title in titles:
        axes.text(_MARGIN, center, title, weight="bold", **style)
    for box in boxes:
        background = diverging_color(box.share)
        color = tuple(channel / 255 for channel in background)
        axes.barh(box.y, box.width, height=_LINE - 10, left=box.x, color=[color], edgecolor="0.8", linewidth=0.6)
        axes.text(box.x + box.width / 2, box.y, box.text, ha="center", color=text_color(background), **style)
    figure.savefig(path)


def _place(
    texts: Sequence[str], widths: Sequence[float], shares: Sequence[float], y: float, from_right: bool
) -> tuple[list[_Box], float]:
    """Place tokens in lines; returns them and the bottom of the last line."""
    boxes = []
    x = float(_MARGIN)
    for text, width, share in zip(texts, widths, shares, strict=True):
        if x > _MARGIN and x + width > _WIDTH - _MARGIN:
            x, y = float(_MARGIN), y + _LINE
        boxes.append(_Box(_WIDTH - x - width if from_right else x, y + _LINE / 2, width, text, share))
        x += width
    return boxes, y + _LINE


def _title(explanation: Explanation, view: View) -> str:
    name = to_visible(view.title)
    name = name if len(name) <= _MAX_TITLE else f"{name[: _MAX_TITLE - 1]}…"
    return f"{name}   ({explanation.method}, {view.logit:.2f}, darkest color {largest_score(view.scores):.2f})"


def _write(token: str) -> str:
    """Write a token so that each of its characters is visible."""
    shown = to_visible(token).strip() or "␣"
    shown = f"◌{shown}" if unicodedata.combining(shown[0]) else shown
    return shown if len(shown) <= _MAX_TOKEN else f"{shown[: _MAX_TOKEN - 1]}…"


def _runs_from_right(text: str) -> bool:
    """Return whether the first letter of a text is of a script that is written from right to left."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((direction for direction in directions if direction in ("L", "R", "AL")), "L") != "L"
