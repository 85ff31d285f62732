import pytest
import torch
from transformers import BartConfig, BartForSequenceClassification, BartModel, RobertaConfig, RobertaModel

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.inspection.audit_rows import MOST_TEXTS, padded_left, padded_right, rows_for, scattered
from tests.heads import build_head

TAKES = frozenset(["input_ids", "attention_mask", "token_type_ids"])
BART = {
    **{"vocab_size": 30, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 40},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8},
}


@pytest.fixture
def model(tiny_config):
    return build_head("MaskAttnModel", tiny_config)


@pytest.fixture
def tokenizer():
    return train_tokenizer(["a b c d e"], kind="word", vocab_size=20, max_length=8)


def test_random_rows_have_ordinary_ids(model):
    rows = rows_for(model, TAKES, None, None, 12, seed=0)
    assert rows.lengths == [12, 8, 4, 1]
    assert model.config.pad_token_id not in torch.cat(rows.by_token["input_ids"])
    assert (rows.pad_id, 0 in rows.ordinary_ids, rows.ordinary_ids.max()) == (0, False, 39)
    again, other = (rows_for(model, TAKES, None, None, 12, seed=seed) for seed in (0, 1))
    assert torch.equal(again.by_token["input_ids"][0], rows.by_token["input_ids"][0])
    assert not torch.equal(other.by_token["input_ids"][0], rows.by_token["input_ids"][0])


def test_rows_are_no_longer_than_the_positions_that_pads_leave():
    tiny = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = RobertaModel(RobertaConfig(**tiny, max_position_embeddings=20))
    assert max(rows_for(model, TAKES, None, None, 32, seed=0).lengths) == 13
    model.config.max_position_embeddings = 7
    with pytest.raises(ValueError, match="the model has 7 positions, an audit needs 8"):
        rows_for(model, TAKES, None, None, 32, seed=0)


def test_texts_are_cut_and_blank_ones_left_out(model, tokenizer):
    rows = rows_for(model, TAKES, tokenizer, [" ", "a b c", "d"], 2, seed=0)
    assert [tokenizer.decode(row) for row in rows.by_token["input_ids"]] == ["a b", "d"]
    assert len(rows_for(model, TAKES, tokenizer, ["a"] * 20, 2, seed=0).lengths) == MOST_TEXTS
    with pytest.raises(ValueError, match="there is no token in the texts"):
        rows_for(model, TAKES, tokenizer, [" "], 2, seed=0)


def test_a_padded_batch_is_taken_apart(model):
    batch = {
        "input_ids": torch.tensor([[0, 5, 0, 6], [0, 0, 0, 0], [7, 8, 9, 9]]),
        "attention_mask": torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]),
        "token_type_ids": torch.tensor([[9, 0, 9, 1], [9, 9, 9, 9], [0, 0, 1, 1]]),
        "decoder_input_ids": torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        "labels": torch.zeros(3, 4),
    }
    rows = rows_for(model, TAKES, None, batch, 3, seed=0)
    assert [row.tolist() for row in rows.by_token["input_ids"]] == [[5, 6], [7, 8, 9]]
    assert [row.tolist() for row in rows.by_token["token_type_ids"]] == [[0, 1], [0, 0, 1]]
    assert {name: value[:, 0].tolist() for name, value in rows.by_row.items()} == {"decoder_input_ids": [1, 3]}
    with pytest.raises(ValueError, match="the batch has no real token"):
        rows_for(model, TAKES, None, {"input_ids": batch["input_ids"][1:2], "attention_mask": torch.zeros(1, 4)}, 3, seed=0)
    with pytest.raises(ValueError, match="the batch has inputs_embeds, but no input_ids"):
        rows_for(model, TAKES, None, {"inputs_embeds": torch.zeros(1, 1, 6)}, 3, seed=0)


def test_an_encoder_decoder_gets_decoder_ids_unless_it_makes_them():
    takes = TAKES | {"decoder_input_ids"}
    rows = rows_for(BartModel(BartConfig(**BART)), takes, None, None, 8, seed=0)
    assert rows.by_row["decoder_input_ids"].shape == (4, 4)
    assert [int(row[-1]) for row in rows.by_token["input_ids"]] == [2, 2, 2, 2]
    assert rows_for(BartForSequenceClassification(BartConfig(**BART)), takes, None, None, 8, seed=0).by_row == {}


def test_rows_change(model):
    rows = rows_for(model, TAKES, None, None, 3, seed=0)
    ids = rows.by_token["input_ids"]
    assert rows.select([2, 0]).lengths == [1, 3]
    assert rows.with_empty_row().lengths == [*rows.lengths, 0]
    grown = rows.longest_grown(4).by_token["input_ids"]
    assert [row.tolist() for row in grown] == [[*ids[0].tolist(), *[int(ids[0][0])] * 4]]
    for row, other in zip(ids, rows.with_other_last_tokens().by_token["input_ids"], strict=True):
        assert torch.equal(row[:-1], other[:-1])
        assert row[-1] != other[-1]


def masks(placement):
    return ["".join("x" if real else "." for real in row) for row in placement.mask.tolist()]


def test_where_tokens_go():
    assert masks(padded_right([3, 1, 0])) == ["xxx", "x..", "..."]
    assert masks(padded_right([3, 1], 2)) == ["xxx..", "x...."]
    assert masks(padded_left([3, 1], 2)) == ["..xxx", "....x"]
    assert masks(scattered([3, 2, 1])) == ["x.x..x..", "x....x..", "x......."]
    assert masks(scattered([7, 3])) == ["xx.xx.xx.x..", "x...x....x.."]


def test_values_are_laid_out_over_padding():
    placement = padded_left([2, 1], 1)
    laid_out = placement.fill([torch.tensor([5, 6]), torch.tensor([7])], torch.tensor([[1, 2, 3], [1, 2, 3]]))
    assert laid_out.tolist() == [[1, 5, 6], [1, 2, 7]]
