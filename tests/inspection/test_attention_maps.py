import logging
import sys

import pytest
import torch
from matplotlib.image import imread

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.inspection import attention_maps as maps_module
from hf_maskattn.inspection.attention_maps import (
    AlignmentMap,
    AttentionMap,
    alignment_maps,
    attention_maps,
    describe_missing,
    draw_alignments,
    draw_attention_maps,
    find_missing_characters,
    readable_tokens,
    validate_plot_path,
)
from tests.heads import build_head
from tests.tolerances import MANY_STEPS
from tests.toy_writer import PAIR_TEXTS, toy_writer

TEXTS = ["ab", "abcde"]


def test_attention_maps_with_and_without_mask(tiny_config, tmp_path):
    model = build_head("MaskAttnForSequenceClassification", tiny_config)
    tokenizer = train_tokenizer(TEXTS, kind="char", vocab_size=20, max_length=8)
    used = attention_maps(model, tokenizer, TEXTS)
    assert model.training
    assert used[0].tokens == ["a", "b", "[PAD]", "[PAD]", "[PAD]"]
    assert used[0].mask.tolist() == [True, True, False, False, False]
    assert used[0].weight_on_padding == 0
    with pytest.warns(FutureWarning, match="Use `weight_on_padding`"):
        assert used[0].mass_on_pads == 0
    torch.testing.assert_close(used[0].weights.sum(), torch.tensor(1.0))
    ignored = attention_maps(model, tokenizer, TEXTS, ignore_mask=True)
    assert 0.5 < ignored[0].weight_on_padding < 0.7
    assert ignored[1].weight_on_padding == 0
    draw_attention_maps({"used": used, "ignored": ignored}, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")


def generate(model, tokenizer, texts=PAIR_TEXTS, **arguments):
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    return inputs, model.generate(**inputs, **arguments)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_alignment_weights_are_those_of_generation(num_heads):
    model, tokenizer = toy_writer(num_attention_heads=num_heads)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.eos_token_id] = 6.0  # so that some targets end earlier
    inputs, outputs = generate(model, tokenizer, return_dict_in_generate=True, output_attentions=True)
    maps = alignment_maps(model.train(), tokenizer, inputs, outputs.sequences)
    assert model.training
    steps = torch.cat([step[0] for step in outputs.cross_attentions], dim=2).mean(dim=1)  # [B, T, Tk]
    lengths = set()
    for row, (alignment, ids, mask) in enumerate(
        zip(maps, outputs.sequences.tolist(), inputs["attention_mask"].bool(), strict=True)
    ):
        assert alignment.num_heads == num_heads
        assert alignment.source == [*PAIR_TEXTS[row].replace(" ", "▁"), "[EOS]"]
        length = len(alignment.target)
        assert alignment.target == [tokenizer.convert_ids_to_tokens(id_) for id_ in ids[1 : length + 1]]
        assert ("[EOS]" in alignment.target) == (tokenizer.eos_token_id in ids)
        assert not any(ids[length + 1 :])
        torch.testing.assert_close(alignment.weights, steps[row, :length, mask], atol=MANY_STEPS, rtol=0)
        torch.testing.assert_close(alignment.weights.sum(dim=1), torch.ones(length), atol=MANY_STEPS, rtol=0)
        lengths.add(length)
    assert len(lengths) > 1


def test_alignments_do_not_depend_on_the_batch():
    model, tokenizer = toy_writer()
    together = alignment_maps(model, tokenizer, *generate(model, tokenizer))
    tokenizer.padding_side = "left"
    left_padded = alignment_maps(model, tokenizer, *generate(model, tokenizer))
    for row, text in enumerate(PAIR_TEXTS):
        (single,) = alignment_maps(model, tokenizer, *generate(model, tokenizer, [text]))
        for alignment in (together[row], left_padded[row]):
            assert (alignment.source, alignment.target) == (single.source, single.target)
            torch.testing.assert_close(alignment.weights, single.weights, atol=MANY_STEPS, rtol=0)


@pytest.mark.parametrize(
    ("eos_ids", "ids", "length"),
    [
        (3, [2, 5, 3, 0, 0], 2),
        ([7, 5], [2, 6, 5, 3, 7], 2),
        (None, [2, 5, 6, 0, 0], 2),
        (3, [2, 5, 6, 5, 6], 4),
        (0, [2, 5, 0, 0, 0], 2),
        (3, [2, 0, 0, 0, 0], 0),
    ],
)
def test_target_of_an_alignment_stops_at_its_end(eos_ids, ids, length):
    model, tokenizer = toy_writer()
    model.generation_config.eos_token_id = eos_ids
    inputs = tokenizer(["woof"], return_tensors="pt")
    (alignment,) = alignment_maps(model, tokenizer, inputs, torch.tensor([ids]))
    assert len(alignment.target) == len(alignment.weights) == length


def test_model_without_cross_attentions_raises(monkeypatch):
    model, tokenizer = toy_writer()
    inputs, sequences = generate(model, tokenizer)
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **kwargs: forward(**{**kwargs, "output_attentions": False}))
    with pytest.raises(ValueError, match="`model` must return `cross_attentions`, got RNNSearchForConditionalGeneration"):
        alignment_maps(model, tokenizer, inputs, sequences)


def test_readable_tokens_of_char_and_bpe_tokenizers():
    char, bpe = (
        train_tokenizer(["the cat, жий 日"], kind=kind, vocab_size=300, max_length=9, for_generation=True)
        for kind in ("char", "bpe")
    )
    assert readable_tokens(char, char("e жий")["input_ids"]) == ["e", "▁", "ж", "и", "й", "[EOS]"]
    pieces = bpe("the жий")["input_ids"]
    assert "".join(readable_tokens(bpe, pieces)).replace(" ", "") == "theжий[EOS]"
    half = bpe.convert_tokens_to_ids(bpe.backend_tokenizer.encode("語").tokens[1])  # a byte that is not a character
    assert readable_tokens(bpe, [half]) == bpe.convert_ids_to_tokens([half])
    assert readable_tokens(char, []) == []


def build_alignment(source, target, weights=None, num_heads=1):
    weights = torch.zeros(len(target), len(source)) if weights is None else weights
    return AlignmentMap(list(source), list(target), weights, num_heads)


def test_draw_alignments_maps_weights_to_gray(tmp_path):
    weights = torch.zeros(20, 30)
    weights[3, 25], weights[15, 4] = 1.0, 0.5
    draw_alignments([build_alignment("a" * 30, "b" * 20, weights)], tmp_path / "map.png")
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
    draw_alignments([build_alignment([*text, "[EOS]"], ["2", "$\\no$", "[EOS]"], num_heads=2) for text in texts], path)
    assert path.stat().st_size > 5000
    assert not caplog.records


def test_characters_without_font_are_drawn_as_code_points(tmp_path, caplog, monkeypatch):
    character = "\u18b0"  # Unified Canadian Aboriginal Syllabics Extended
    monkeypatch.setattr(maps_module, "_select_fonts", lambda characters: (["DejaVu Sans"], characters - {"a"}))
    assert find_missing_characters(f"a\n{character}") == {character}
    with caplog.at_level(logging.WARNING):
        draw_alignments([build_alignment(["a", character], "a")], tmp_path / "map.svg")
    (message,) = caplog.messages
    assert message == (
        "No installed font has 1 of the characters (Canadian), such as U+18B0. Install a font of their script, such as Noto "
        "(Debian and Ubuntu: apt install fonts-noto-core). They are drawn as code points."
    )


def test_characters_missing_in_default_font_use_another(tmp_path, caplog):
    character = "\u1d8d"  # a letter of STIX, which comes with matplotlib
    assert find_missing_characters(character) == set()
    draw_alignments([build_alignment([character], "a")], tmp_path / "map.png")
    assert not caplog.records


def test_missing_characters_are_described_by_script():
    text = describe_missing({*"\u6f22\u3042\ud55c\u0915"})
    assert "4 of the characters (CJK, Devanagari, Hangul, Hiragana), such as U+0915" in text
    assert "apt install fonts-noto-cjk fonts-noto-core)" in text


@pytest.mark.parametrize(("length", "word", "is_wrapped"), [(3, "a", False), (60, "a", True), (30, "\u6f22" * 12, True)])
def test_attention_maps_fit_a_page(tmp_path, length, word, is_wrapped):
    heights = []
    for tokens in ([word], [word] * length):
        maps = [
            AttentionMap(tokens, torch.ones(len(tokens), dtype=torch.bool), torch.full((len(tokens),), 1 / len(tokens)))
        ] * 2
        draw_attention_maps({"attention": maps}, tmp_path / "maps.png")
        header = (tmp_path / "maps.png").read_bytes()[:24]
        assert int.from_bytes(header[16:20]) <= 1600  # the width
        heights.append(int.from_bytes(header[20:24]))
    assert (heights[1] > heights[0]) == is_wrapped


def test_missing_glyphs_are_no_warnings(tmp_path, recwarn):
    maps = [AttentionMap(["\u6f22", "\u0915\u200d", "\n"], torch.ones(3, dtype=torch.bool), torch.ones(3) / 3)]
    draw_attention_maps({"attention": maps}, tmp_path / "maps.png")
    draw_alignments([build_alignment(["\u6f22", "\u0915"], ["\n"])], tmp_path / "map.png", " (short)")
    assert [str(warning.message) for warning in recwarn] == []


def test_draw_alignments_leaves_out_empty_targets(tmp_path):
    draw_alignments([build_alignment(["a", "b"], ["c"]), build_alignment(["a"], [])], tmp_path / "map.png")
    with pytest.raises(ValueError, match="There must be at least one alignment to draw, got none"):
        draw_alignments([build_alignment(["a"], [])], tmp_path / "other.png")


def test_draw_alignments_rejects_bad_input(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must have at most 100000000 pixels, got \d+ x \d+ for 2 alignments"):
        draw_alignments([build_alignment("a" * 500, "b" * 500)] * 2, tmp_path / "map.png")
    for name in ("map.docx", "map"):
        with pytest.raises(ValueError, match=rf"The suffix of a plot must be one of .*\.png.* got .*{name}"):
            validate_plot_path(tmp_path / name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'Plots need matplotlib: pip install "hf-maskattn\[viz\] @ git\+https'):
        validate_plot_path("map.png")
    assert not list(tmp_path.iterdir())
