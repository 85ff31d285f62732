import logging
import sys

import pytest
import torch
from matplotlib.image import imread

from hf_maskattn.inspection.attention_maps import AlignmentMap
from hf_maskattn.inspection.plots import can_be_drawn, draw_alignments, require_picture


def build(source, target, weights=None, num_heads=1):
    weights = torch.zeros(len(target), len(source)) if weights is None else weights
    return AlignmentMap(list(source), list(target), weights, num_heads)


def test_the_source_runs_to_the_right_the_output_down_and_more_weight_is_brighter(tmp_path):
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


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_panel_for_each_map_in_any_script_without_a_warning(tmp_path, caplog, ending):
    texts = ["5 mars 2024", "8 октября", "5 Ιανουαρίου", "12 მაისი", "4 במרץ", "$5^2$ & \\alpha", "_"]
    path = tmp_path / f"maps.{ending}"
    draw_alignments([build([*text, "[EOS]"], ["2", "$\\no$", "[EOS]"], num_heads=2) for text in texts], path)
    assert path.stat().st_size > 5000
    assert not caplog.records


def test_signs_that_no_font_has_are_written_as_code_points_and_told(tmp_path, caplog):
    sign = "\U000e0fff"  # assigned to nothing
    assert not can_be_drawn(sign)
    with caplog.at_level(logging.WARNING):
        draw_alignments([build(["a", sign], "a")], tmp_path / "map.svg")
    assert "No installed font has 1 of the signs, such as U+E0FFF" in caplog.text


def test_signs_that_the_usual_font_lacks_are_taken_from_another(tmp_path, caplog):
    sign = "\u1d8d"  # a letter of STIX, which comes with matplotlib
    assert not can_be_drawn(sign)
    draw_alignments([build([sign], "a")], tmp_path / "map.png")
    assert not caplog.records


def test_what_cannot_be_drawn_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="There is no alignment to draw"):
        draw_alignments([], tmp_path / "map.png")
    with pytest.raises(ValueError, match=r"picture of 2 alignments would have \d+ x \d+ pixels: give fewer or shorter texts"):
        draw_alignments([build("a" * 500, "b" * 500)] * 2, tmp_path / "map.png")
    for name in ("map.docx", "map"):
        with pytest.raises(ValueError, match=rf"{name} has no ending of a picture: use one of .*\.png"):
            require_picture(tmp_path / name)
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    with pytest.raises(ImportError, match=r'pictures need matplotlib: pip install "hf-maskattn\[viz\] @ git\+https'):
        require_picture("map.png")
    assert not list(tmp_path.iterdir())
