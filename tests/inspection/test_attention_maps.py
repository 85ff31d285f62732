import pytest
import torch

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.inspection.attention_maps import alignment_maps, attention_maps, readable_tokens
from hf_maskattn.inspection.plots import draw_attention_maps
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
