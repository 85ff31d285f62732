"""The explanation of one prediction: a score for each token or word of a text and each output of the model."""

import json
import unicodedata
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import torch

Method = Literal["contributions", "removal", "integrated_gradients", "gradient_x_input", "attention"]
METHODS: tuple[Method, ...] = get_args(Method)

Unit = Literal["token", "word"]
UNITS: tuple[Unit, ...] = get_args(Unit)

Color = tuple[int, int, int]
"""Red, green and blue in 0 to 255."""

_AGAINST, _ZERO, _FOR = (33, 102, 172), (255, 255, 255), (230, 97, 1)
_DARK_AGAINST, _DARK_ZERO, _DARK_FOR = (84, 156, 235), (24, 26, 31), (245, 130, 40)
"""Blue and orange: the ends of a diverging scale that color-blind readers can tell apart, on white and on a dark page."""

_SHOWN_LABELS = 50
_VISIBLE = dict.fromkeys(("Cc", "Cs"), "\ufffd")


class View(NamedTuple):
    """The scores of one output, to be shown over the text.

    Attributes:
        title: The output: a class, a token with its tag, or the generated text.
        scores: `[T]`, the score of each token.
        base: The output without the tokens.
        logit: What the model returns for the output.
    """

    title: str
    scores: torch.Tensor
    base: float
    logit: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The scores of the tokens of a text for the outputs of a model.

    The columns are what the model predicts: the classes of a classifier of texts; for a tagger one column for each token (or
    word), which is the logit of its predicted tag; for text to text one column for each generated token, which is its
    log-probability. A text without a visible character has neither tokens nor columns.

    Attributes:
        text: The text.
        task: Task of the model. It is "text-classification" for joint classification too, which classifies texts.
        method: See `explain`.
        unit: "token", "word" or "span".
        tokens: The T explained tokens, words or spans, as they stand in the text. A special token is listed by its name.
        offsets: Start and end of each in the text; equal for a special token.
        labels: Name of each column.
        scores: `[T, columns]`, float. For `removal` of a tagger, the score of a token for its own tag is NaN: a token that is
            removed has no tag. So is that for a tag that a CRF does not allow without the token.
        base: `[columns]`, float, the output without the tokens: where a method is complete, `scores.sum(0) + base` is `logits`.
        logits: `[columns]`, float, the output for the text. Where the model is a classifier of texts, its logits.
        predicted: The columns that are predicted.
        generated_text: The output of a text-to-text model.
        all_unknown: Whether the tokenizer knows no token of the text, so that the scores say nothing about its words.
        entities: The entities of the text, or its words with their tags, as `predict` returns them; None without tags.
    """

    text: str
    task: str
    method: str
    unit: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    labels: list[str]
    scores: torch.Tensor
    base: torch.Tensor
    logits: torch.Tensor
    predicted: list[int]
    generated_text: str | None = None
    all_unknown: bool = False
    entities: list[dict[str, Any]] | None = None

    @property
    def completeness_gap(self) -> float:
        """Largest difference of `scores.sum(0) + base` from `logits`: 0 where the scores add up to what they explain."""
        gap = (self.scores.nansum(dim=0) + self.base - self.logits).abs()
        return float(gap.max()) if gap.numel() else 0.0

    def select(self, label: str) -> "Explanation":
        """Return the explanation of the column of a label.

        Raises:
            ValueError: If there is no such column.
        """
        check_label(label, self.labels)
        column = [self.labels.index(label)]
        scores, base, logits = self.scores[:, column], self.base[column], self.logits[column]
        return replace(self, labels=[label], scores=scores, base=base, logits=logits, predicted=[0])

    def views(self) -> list[View]:
        """Return what is worth showing: each predicted class, each token with another tag than "O", or the generated text."""
        if self.generated_text is not None:
            return [View(self.generated_text, self.scores.sum(dim=1), float(self.base.sum()), float(self.logits.sum()))]
        return [
            View(self.labels[column], self.scores[:, column], float(self.base[column]), float(self.logits[column]))
            for column in self.predicted
        ]

    def to_json(self) -> str:
        """Convert to a JSON object on one line, with the attributes as its keys; NaN is null."""
        values = {
            name: _replace_nan(value.tolist()) if isinstance(value, torch.Tensor) else value
            for name, value in vars(self).items()
        }
        return json.dumps(values, ensure_ascii=False)

    def to_html(self) -> str:
        """Convert to a page of HTML, one file that needs no network; see `render_page`."""
        from hf_maskattn.inspection.explanation_page import render_page

        return render_page([self])

    def _repr_html_(self) -> str:
        """Show the page in a notebook."""
        from hf_maskattn.inspection.explanation_page import render_frame

        return render_frame(self)

    @classmethod
    def from_json(cls, line: str) -> "Explanation":
        """Read what `to_json` wrote; scores are float32."""
        values = json.loads(line)
        for name in ("scores", "base", "logits"):
            values[name] = torch.tensor(_restore_nan(values[name]), dtype=torch.float32)
        values["scores"] = values["scores"].reshape(len(values["tokens"]), len(values["labels"]))
        values["offsets"] = [tuple(pair) for pair in values["offsets"]]
        return cls(**values)


def check_label(label: str, labels: list[str]) -> None:
    """Check that a class is among those of a model.

    Raises:
        ValueError: If it is not. The message lists the classes.
    """
    if label not in labels:
        others = f" and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
        raise ValueError(f"The class must be one of {', '.join(labels[:_SHOWN_LABELS])}{others}, got {label!r}.")


def diverging_color(value: float, *, is_dark: bool = False) -> Color:
    """Return the color of a score: the background of a white or dark page for 0, orange towards 1, blue towards -1.

    The score is divided by the largest absolute one; NaN is 0.
    """
    share = min(abs(value), 1.0) if value == value else 0.0
    against, zero, favor = (_DARK_AGAINST, _DARK_ZERO, _DARK_FOR) if is_dark else (_AGAINST, _ZERO, _FOR)
    end = favor if value > 0 else against
    red, green, blue = (round(start + share * (stop - start)) for start, stop in zip(zero, end, strict=True))
    return red, green, blue


def text_color(background: Color) -> str:
    """Return "black" or "white", whichever is readable on a background: their contrast is at least 4.5.

    Source:
        Web Content Accessibility Guidelines 2.2, relative luminance and contrast ratio.
    """
    return "black" if relative_luminance(background) > _EQUAL_CONTRAST else "white"


_EQUAL_CONTRAST = 0.179
"""Luminance L on which black and white have the same contrast: (L + 0.05) / 0.05 = 1.05 / (L + 0.05)."""


def relative_luminance(color: Color) -> float:
    """Return the luminance of a color, from 0 for black to 1 for white."""
    shares = [channel / 255 for channel in color]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def to_visible(text: str) -> str:
    """Replace white space by spaces and control characters by U+FFFD, one by one, so that a text cannot control a terminal."""
    return "".join(
        " " if character.isspace() else _VISIBLE.get(unicodedata.category(character), character) for character in text
    )


def largest_score(scores: torch.Tensor) -> float:
    """Return the largest absolute score, by which colors are scaled; 1 where all scores are 0."""
    return float(scores.nan_to_num().abs().max()) or 1.0 if scores.numel() else 1.0


def _replace_nan(values: Any) -> Any:
    if isinstance(values, list):
        return [_replace_nan(value) for value in values]
    return values if values == values else None


def _restore_nan(values: Any) -> Any:
    if isinstance(values, list):
        return [_restore_nan(value) for value in values]
    return float("nan") if values is None else values
