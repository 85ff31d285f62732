import logging
import sys

import pytest
import torch
from matplotlib.image import imread

from hf_maskattn.inspection.attention_maps import AlignmentMap
from hf_maskattn.inspection.plots import can_be_drawn, draw_alignments, validate_plot_path


def build(source, target, weights=None, num_heads=1):
    weights = torch.zeros(len(target), len(source)) if weights is None else weights
    return AlignmentMap(list(source), list(target), weights, num_heads)


def test_draw_alignments_maps_weights_to_gray(tmp_path):
    weights = torch.zeros(20, 30)
    weights[3, 25], weights[15, 4] = 1.0, 0.5
    draw_alignments([build("a" * 30, "b" * 20, weights)], tmp_path / "map.png")
    gray = torch.from_numpy(imread(tmp_path / "map.png")[..., 0])
    black = (gray == 0).float()
    top, bottom = (black.mean(dim=1) > 0.5).nonzero()[[0, -1], 0].tolist()
    left, right = (black.mean(dim=0) > 0.5).nonzero()[[0, -1], 0].tolist()
    rows = (top + (torch.arange(20) + 0.5) / 20 * (bottom - top)).long()
    columns = (left + (torch.arange(30) + 0.5) / 30 * (right - left)).long()
    torch.testing.assert_close(gray[rows][:, columns], weights, atol=0.01, rtol=0)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_draw_alignments_in_any_script_and_format(tmp_path, caplog, suffix):
    texts = ["5 mars 2024", "8 октября", "5 Ιανουαρίου", "12 მაისი", "4 במרץ", "$5^2$ & \\alpha", "_"]
    path = tmp_path / f"maps.{suffix}"
    draw_alignments([build([*text, "[EOS]"], ["2", "$\\no$", "[EOS]"], num_heads=2) for text in texts], path)
    assert path.stat().st_size > 5000
    assert not caplog.records


def test_characters_without_font_are_drawn_as_code_points(tmp_path, caplog):
    character = "\U000e0fff"  # assigned to nothing
    assert not can_be_drawn(character)
    with caplog.at_level(logging.WARNING):
        draw_alignments([build(["a", character], "a")], tmp_path / "map.svg")
    assert "No installed font has 1 of the characters, such as U+E0FFF" in caplog.text


def test_characters_missing_in_default_font_use_another(tmp_path, caplog):
    character = "\u1d8d"  # a letter of STIX, which comes with matplotlib
    assert not can_be_drawn(character)
    draw_alignments([build([character], "a")], tmp_path / "map.png")
    assert not caplog.records


def test_draw_alignments_rejects_bad_input(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="There must be at least one alignment to draw, got none"):
        draw_alignments([], tmp_path / "map.png")
    with pytest.raises(ValueError, match=r"must have at most 100000000 pixels, got \d+ x \d+ for 2 alignments"):
        draw_alignments([build("a" * 500, "b" * 500)] * 2, tmp_path / "map.png")
    for name in ("map.docx", "map"):
        with pytest.raises(ValueError, match=rf"The suffix of a plot must be one of .*\.png.* got .*{name}"):
            validate_plot_path(tmp_path / name)
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    with pytest.raises(ImportError, match=r'Plots need matplotlib: pip install "hf-maskattn\[viz\] @ git\+https'):
        validate_plot_path("map.png")
    assert not list(tmp_path.iterdir())
