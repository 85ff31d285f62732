import pytest
import torch

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.inspection.attention_maps import alignment_maps, attention_maps, readable_tokens
from hf_maskattn.inspection.plots import draw_attention_maps
from tests.heads import build_head
from tests.tolerances import MANY_STEPS
from tests.toy_writer import PAIR_TEXTS, toy_writer

TEXTS = ["ab", "abcde"]


def test_maps_and_their_picture(tiny_config, tmp_path):
    model = build_head("MaskAttnForSequenceClassification", tiny_config)
    tokenizer = train_tokenizer(TEXTS, kind="char", vocab_size=20, max_length=8)
    used = attention_maps(model, tokenizer, TEXTS)
    assert model.training
    assert used[0].tokens == ["a", "b", "[PAD]", "[PAD]", "[PAD]"]
    assert used[0].mask.tolist() == [True, True, False, False, False]
    assert used[0].mass_on_pads == 0
    torch.testing.assert_close(used[0].weights.sum(), torch.tensor(1.0))
    ignored = attention_maps(model, tokenizer, TEXTS, ignore_mask=True)
    assert 0.5 < ignored[0].mass_on_pads < 0.7
    assert ignored[1].mass_on_pads == 0
    draw_attention_maps({"used": used, "ignored": ignored}, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")


def write(model, tokenizer, texts=PAIR_TEXTS, **arguments):
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    return inputs, model.generate(**inputs, **arguments)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_a_row_is_what_chose_its_token(num_heads):
    model, tokenizer = toy_writer(num_attention_heads=num_heads)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.eos_token_id] = 6.0  # so that some end before the others
    inputs, found = write(model, tokenizer, return_dict_in_generate=True, output_attentions=True)
    maps = alignment_maps(model.train(), tokenizer, inputs, found.sequences)
    assert model.training
    steps = torch.cat([step[0] for step in found.cross_attentions], dim=2).mean(dim=1)  # [B, T, Tk]
    lengths = set()
    for row, (alignment, words, real) in enumerate(
        zip(maps, found.sequences.tolist(), inputs["attention_mask"].bool(), strict=True)
    ):
        assert alignment.num_heads == num_heads
        assert alignment.source == [*PAIR_TEXTS[row].replace(" ", "▁"), "[EOS]"]
        length = len(alignment.target)
        assert alignment.target == [tokenizer.convert_ids_to_tokens(word) for word in words[1 : length + 1]]
        assert ("[EOS]" in alignment.target) == (tokenizer.eos_token_id in words)
        assert not any(words[length + 1 :])
        torch.testing.assert_close(alignment.weights, steps[row, :length, real], atol=MANY_STEPS, rtol=0)
        torch.testing.assert_close(alignment.weights.sum(dim=1), torch.ones(length), atol=MANY_STEPS, rtol=0)
        lengths.add(length)
    assert len(lengths) > 1


def test_a_batch_gives_the_maps_of_its_rows():
    model, tokenizer = toy_writer()
    together = alignment_maps(model, tokenizer, *write(model, tokenizer))
    tokenizer.padding_side = "left"
    on_the_left = alignment_maps(model, tokenizer, *write(model, tokenizer))
    for row, text in enumerate(PAIR_TEXTS):
        (alone,) = alignment_maps(model, tokenizer, *write(model, tokenizer, [text]))
        for found in (together[row], on_the_left[row]):
            assert (found.source, found.target) == (alone.source, alone.target)
            torch.testing.assert_close(found.weights, alone.weights, atol=MANY_STEPS, rtol=0)


@pytest.mark.parametrize(
    ("ends", "words", "length"),
    [
        (3, [2, 5, 3, 0, 0], 2),
        ([7, 5], [2, 6, 5, 3, 7], 2),
        (None, [2, 5, 6, 0, 0], 2),
        (3, [2, 5, 6, 5, 6], 4),
        (0, [2, 5, 0, 0, 0], 2),
        (3, [2, 0, 0, 0, 0], 0),
    ],
)
def test_what_is_written_ends_at_its_end(ends, words, length):
    model, tokenizer = toy_writer()
    model.generation_config.eos_token_id = ends
    inputs = tokenizer(["woof"], return_tensors="pt")
    (found,) = alignment_maps(model, tokenizer, inputs, torch.tensor([words]))
    assert len(found.target) == len(found.weights) == length


def test_a_model_that_gives_no_weights_is_refused(monkeypatch):
    model, tokenizer = toy_writer()
    inputs, sequences = write(model, tokenizer)
    whole = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: whole(**{**given, "output_attentions": False}))
    with pytest.raises(ValueError, match="RNNSearchForConditionalGeneration gives no cross_attentions: an alignment needs"):
        alignment_maps(model, tokenizer, inputs, sequences)


def test_tokens_are_readable_whatever_the_tokenizer_makes_of_them():
    char, bpe = (
        train_tokenizer(["the cat, жий 日"], kind=kind, vocab_size=300, max_length=9, for_generation=True)
        for kind in ("char", "bpe")
    )
    assert readable_tokens(char, char("e жий")["input_ids"]) == ["e", "▁", "ж", "и", "й", "[EOS]"]
    pieces = bpe("the жий")["input_ids"]
    assert "".join(readable_tokens(bpe, pieces)).replace(" ", "") == "theжий[EOS]"
    half = bpe.convert_tokens_to_ids(bpe.backend_tokenizer.encode("語").tokens[1])  # a byte that is no sign
    assert readable_tokens(bpe, [half]) == bpe.convert_ids_to_tokens([half])
    assert readable_tokens(char, []) == []
