"""Explanations as a page of HTML, from the template `explanation_page.html`."""

import html
import math
import unicodedata
from base64 import b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import Environment, StrictUndefined, Template
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from hf_maskattn.inspection.explanations import Explanation, diverging_color, largest_score, text_color

_TEMPLATE = Path(__file__).with_name("explanation_page.html")
_LEVELS = 10
"""Number of colors on each side of zero."""

_MAX_CELLS = 100_000
"""Number of scores in the tables of a page, which is about 3 MB."""

_MINUS, _NO_SCORE = "\u2212", "\u2013"

_NOTES = {
    "contributions": "The score of a token is its part of the logit: the scores and the base add up to the logit.",
    "removal": "The score of a token is the output for the text minus the output for the text without the token.",
    "integrated_gradients": "Integrated gradients: the scores and the base add up to the logit, up to the error of the steps.",
    "gradient_x_input": "Gradient x input: the score of a token is the effect of scaling its embedding, to first order.",
    "attention": "The score of a token is its attention weight, the same for every output, neither for nor against it.",
}


class _Column(NamedTuple):
    """An output, with the scores of the tokens in their order in the text."""

    label: str
    scores: list[float]
    base: float
    logit: float
    scale: float


class _Cell(NamedTuple):
    """A score as text, and its color."""

    text: str
    color: str


class _Piece(NamedTuple):
    """A part of the text: the tokens of one or more letters, a special token, or what lies between (without `rows`)."""

    text: str
    rows: list[int]
    is_special: bool = False


class _Mark(NamedTuple):
    """A part of a text, with the entity that it is."""

    text: str
    type: str = ""
    score: str = ""
    color: int = 0


def render_page(explanations: Sequence[Explanation], title: str = "") -> str:
    """Render explanations as one HTML file that needs no network.

    Each text has its tokens on the color of their scores (orange for the output, blue against it), a legend and a table of the
    scores. For a tagger its entities are marked in the text; for text to text the table is the alignment of source and output.
    A script shows another class on choice; without it the first prediction is colored. Tokens that share a letter with an
    accent, an emoji or another character have one color, by their sum.

    Args:
        explanations: The explanations.
        title: What was explained, such as the name of the model.

    Returns:
        The page. Tables have up to 100,000 scores in all; the columns of less probable classes are left out first.
    """
    num_tokens = sum(len(explanation.tokens) for explanation in explanations)
    max_columns = max(1, _MAX_CELLS // max(1, num_tokens))
    texts = [_describe_text(explanation, max_columns) for explanation in explanations]
    methods = dict.fromkeys(explanation.method for explanation in explanations)
    levels = range(-_LEVELS, _LEVELS + 1)
    return _load_template().render(
        title=_to_visible(title),
        texts=texts,
        notes=[_NOTES[method] for method in methods],
        palettes={name: [_describe_color(level, name == "dark") for level in levels] for name in ("light", "dark")},
    )


def render_frame(explanation: Explanation, height: str | None = None) -> str:
    """Render an explanation in a frame of a page or a notebook, so that neither changes the styles of the other."""
    page = html.escape(render_page([explanation]))
    height = height or f"{min(640, 260 + 30 * (len(explanation.text) // 80))}px"
    style = f"width:100%;height:{height};border:0"
    return f'<iframe title="Explanation" sandbox="allow-scripts" style="{style}" srcdoc="{page}"></iframe>'


@cache
def _load_template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["sha256"] = lambda text: f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
    return environment.from_string(_TEMPLATE.read_text("utf-8"))


def _describe_text(explanation: Explanation, max_columns: int) -> dict[str, Any]:
    """Return what the template shows of an explanation."""
    text = _to_visible(explanation.text)
    order, pieces = _cut_text(text, explanation)
    columns = _list_columns(explanation, order)
    shown = columns[:max_columns]
    scores = [score for column in shown for score in column.scores]
    digits = _count_digits(max((abs(score) for score in scores if not math.isnan(score)), default=1.0))
    generates = explanation.generated_text is not None
    return {
        "text": text,
        "unit": explanation.unit,
        "method": explanation.method,
        "output": "log-probability" if generates else "logit",
        "views": [(_to_visible(view.title), _format(view.logit, 3)) for view in explanation.views()],
        "all_unknown": explanation.all_unknown,
        "pieces": [(piece, _sum_cells(piece.rows, shown[0], digits)) for piece in pieces] if shown else [],
        "is_tagged": explanation.task == "token-classification",
        "marks": None if explanation.entities is None else _mark_entities(text, explanation.entities),
        "is_matrix": generates,
        "columns": [(_name(column.label), _format(column.logit, 3), _format(column.scale, digits)) for column in shown],
        "num_left_out": len(columns) - len(shown),
        "has_negative": any(score < 0 for score in scores),
        "rows": [
            (_name(explanation.tokens[index]), [_cell(column.scores[row], column.scale, digits) for column in shown])
            for row, index in enumerate(order)
        ],
        "bases": [_format(column.base, digits) for column in shown],
    }


def _list_columns(explanation: Explanation, order: Sequence[int]) -> list[_Column]:
    """List the outputs to show, the predicted ones first, each class on its own scale and generated tokens on a common one."""
    scores = explanation.scores[order]  # [T, columns]

    def build(index: int, scale: float | None = None) -> _Column:
        values = scores[:, index]
        base, logit = float(explanation.base[index]), float(explanation.logits[index])
        return _Column(explanation.labels[index], values.tolist(), base, logit, scale or largest_score(values))

    if explanation.generated_text is not None:
        total, scale = scores.sum(dim=1), largest_score(scores)
        base, logit = float(explanation.base.sum()), float(explanation.logits.sum())
        whole = _Column("whole output", total.tolist(), base, logit, largest_score(total))
        return [whole, *(build(index, scale) for index in range(len(explanation.labels)))]
    if explanation.task == "token-classification":
        return [build(index) for index in explanation.predicted]
    others = torch.argsort(explanation.logits, descending=True, stable=True).tolist()
    return [build(index) for index in dict.fromkeys([*explanation.predicted, *others])]


def _cut_text(text: str, explanation: Explanation) -> tuple[list[int], list[_Piece]]:
    """Cut a text, whose characters can be displayed, into pieces; also return the order of the tokens in the text.

    Tokens are in one piece where they are parts of one character, such as the bytes of an emoji, or a letter and its accent.
    """
    characters = [span for _, span in Split(Regex(r"\X"), "isolated").pre_tokenize_str(text)]
    starts, ends = [start for start, _ in characters], [end for _, end in characters]
    places: list[int] = []
    for start, end in explanation.offsets:
        places.append(start if end > start else max(places, default=0))  # a special token has no place of its own
    order = sorted(range(len(places)), key=places.__getitem__)
    pieces: list[_Piece] = []
    begin = position = 0
    for row, index in enumerate(order):
        start, end = explanation.offsets[index]
        if end <= start:
            pieces.append(_Piece(_name(explanation.tokens[index]), [row], is_special=True))
            continue
        start, end = starts[bisect_right(starts, start) - 1], ends[bisect_left(ends, end)]
        last = next((number for number in reversed(range(len(pieces))) if not pieces[number].is_special), None)
        if start < position and last is not None:
            position = max(position, end)
            pieces[last] = _Piece(text[begin:position], [*pieces[last].rows, row])
            continue
        if start > position:
            pieces.append(_Piece(text[position:start], []))
        begin, position = start, end
        pieces.append(_Piece(text[start:end], [row]))
    return order, [*pieces, _Piece(text[position:], [])]


def _mark_entities(text: str, entities: Sequence[dict[str, Any]]) -> list[_Mark]:
    """Cut a text into its entities, which are words with other tags than "O" where tags mark none, and what lies between."""
    typed = [(entity.get("entity_group") or entity["entity"], entity) for entity in entities]
    typed = [(type_, entity) for type_, entity in typed if type_ != "O"]
    types = [*dict.fromkeys(type_ for type_, _ in typed)]
    marks = []
    position = 0
    for type_, entity in typed:
        start, end = entity["start"], entity["end"]
        marks += [
            _Mark(text[position:start]),
            _Mark(text[start:end], _to_visible(type_), _format(entity["score"], 2), types.index(type_) % 6),
        ]
        position = end
    return [*marks, _Mark(text[position:])]


def _sum_cells(rows: Sequence[int], column: _Column, digits: int) -> _Cell:
    scores = [column.scores[row] for row in rows]
    known = [score for score in scores if not math.isnan(score)]
    return _cell(sum(known) if known or not scores else math.nan, column.scale, digits)


def _cell(score: float, scale: float, digits: int) -> _Cell:
    """Format a score, and name its color: "p1" to "p10" for the output, "n1" to "n10" against it, "z" for 0."""
    if math.isnan(score):
        return _Cell(_NO_SCORE, "z")
    return _Cell(_format(score, digits, "+"), _name_color(round(_LEVELS * max(-1.0, min(1.0, score / scale)))))


def _name_color(level: int) -> str:
    return "z" if level == 0 else f"{'p' if level > 0 else 'n'}{abs(level)}"


def _describe_color(level: int, is_dark: bool) -> dict[str, str]:
    color = diverging_color(level / _LEVELS, is_dark=is_dark)
    red, green, blue = color
    return {"name": _name_color(level), "background": f"rgb({red},{green},{blue})", "text": text_color(color)}


def _format(number: float, digits: int, sign: str = "-") -> str:
    if math.isnan(number):
        return _NO_SCORE
    text = f"{number:{sign}.{digits}f}"
    return text.replace("-", _MINUS) if text.strip("+-0.") else "0"


def _count_digits(largest: float) -> int:
    """Return the number of digits after the point: 3, or as many as show three digits of the largest score."""
    return 3 if largest <= 0 or largest >= 0.1 or math.isinf(largest) else min(9, 2 - math.floor(math.log10(largest)))


def _name(token: str) -> str:
    """Return a token as it is written in a table or a menu, where white space and accents alone are not visible."""
    visible = " ".join(_to_visible(token).split()) or "␣"
    return f"◌{visible}" if unicodedata.combining(visible[0]) else visible


def _to_visible(text: str) -> str:
    """Replace, one by one, control characters and lone surrogates, which HTML does not allow."""
    return "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r" else character
        for character in text
    )
