import pytest

from hf_maskattn.inspection.explain import explain
from hf_maskattn.inspection.explanation_plots import draw_explanations
from hf_maskattn.inspection.explanations import diverging_color, text_color
from tests.inspection.explained_models import TEXTS, build_model


@pytest.fixture
def drawn(monkeypatch):
    """Records the boxes of a plot: color, place and text."""
    from matplotlib.axes import Axes

    boxes = []
    draw = Axes.barh

    def record(self, y, width, **options):
        boxes.append((y, options["left"], width, options["color"][0]))
        return draw(self, y, width, **options)

    monkeypatch.setattr(Axes, "barh", record)
    return boxes


def test_tokens_are_colored_by_their_scores(classifier, drawn, tmp_path):
    (explanation,) = explain(*classifier, TEXTS[:1])
    draw_explanations([explanation], tmp_path / "a.png")
    scores = explanation.views()[0].scores
    expected = [diverging_color(float(score / scores.abs().max())) for score in scores]
    assert [tuple(round(255 * channel) for channel in color) for *_, color in drawn] == expected
    lefts = [left for _, left, *_ in drawn]
    assert lefts == sorted(lefts)


def test_tokens_are_written_in_the_readable_color(classifier, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    colors = []
    write = Axes.text

    def record(self, *args, color="black", **options):
        colors.append(color)
        return write(self, *args, color=color, **options)

    monkeypatch.setattr(Axes, "text", record)
    (explanation,) = explain(*classifier, TEXTS[:1])
    draw_explanations([explanation], tmp_path / "a.png")
    scores = explanation.views()[0].scores
    expected = [text_color(diverging_color(float(score / scores.abs().max()))) for score in scores]
    assert colors[-len(expected) :] == expected


def test_long_texts_are_wrapped(classifier, drawn, tmp_path):
    draw_explanations(explain(*classifier, [" ".join(TEXTS * 6)]), tmp_path / "a.png")
    assert len({y for y, *_ in drawn}) > 2
    assert all(left >= 0 and left + width <= 1600 for _, left, width, _ in drawn)
    assert int.from_bytes((tmp_path / "a.png").read_bytes()[16:20], "big") == 1600


def test_right_to_left_text_runs_from_the_right(classifier, drawn, tmp_path):
    draw_explanations(explain(*classifier, ["\u05d0\u05d1 \u05d2"]), tmp_path / "a.png")
    lefts = [left for _, left, *_ in drawn]
    assert lefts == sorted(lefts, reverse=True)
    assert lefts[0] > 1400


# Which fonts are installed differs.
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("text", ["$x_1$ cat", "a\u0301 \u0301", "\U0001f600 \x00", "cat\n\tdogs"])
def test_any_character_is_drawn(text, tmp_path):
    draw_explanations(explain(*build_model(kind="char"), [text]), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_plots_that_cannot_be_drawn_are_refused(classifier, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="There must be at least one prediction to draw, got none"):
        draw_explanations(explain(*classifier, [" "]), tmp_path / "a.png")
    monkeypatch.setattr("hf_maskattn.inspection.explanation_plots._MAX_HEIGHT", 50)
    with pytest.raises(ValueError, match="A plot must be at most 50 pixels high, got 1"):
        draw_explanations(explain(*classifier, TEXTS[:1]), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_colors_diverge_from_white():
    assert diverging_color(0.0) == diverging_color(float("nan")) == (255, 255, 255)
    assert diverging_color(1.0) == diverging_color(3.0) == (230, 97, 1)
    assert diverging_color(-1.0) == (33, 102, 172)
