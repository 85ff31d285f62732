import torch

from hf_maskattn.data.tokenizer_training import train_tokenizer
from hf_maskattn.inspection.attention_maps import attention_maps
from hf_maskattn.inspection.plots import draw_attention_maps
from tests.heads import build_head

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
