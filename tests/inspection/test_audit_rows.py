import pytest
import torch
from transformers import BartConfig, BartForSequenceClassification, BartModel, RobertaConfig, RobertaModel

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.inspection.audit_rows import MAX_TEXTS, build_rows, pad_between, pad_left, pad_right
from tests.heads import build_head

INPUT_NAMES = frozenset(["input_ids", "attention_mask", "token_type_ids"])
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
    rows = build_rows(model, INPUT_NAMES, None, None, 12, seed=0)
    assert rows.lengths == [12, 8, 4, 1]
    assert model.config.pad_token_id not in torch.cat(rows.token_inputs["input_ids"])
    assert (rows.pad_id, 0 in rows.ordinary_ids, rows.ordinary_ids.max()) == (0, False, 39)
    same_seed, other_seed = (build_rows(model, INPUT_NAMES, None, None, 12, seed=seed) for seed in (0, 1))
    assert torch.equal(same_seed.token_inputs["input_ids"][0], rows.token_inputs["input_ids"][0])
    assert not torch.equal(other_seed.token_inputs["input_ids"][0], rows.token_inputs["input_ids"][0])


def test_rows_are_limited_to_the_positions():
    tiny = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = RobertaModel(RobertaConfig(**tiny, max_position_embeddings=20))
    assert max(build_rows(model, INPUT_NAMES, None, None, 32, seed=0).lengths) == 13
    model.config.max_position_embeddings = 7
    with pytest.raises(ValueError, match="`max_position_embeddings` of the model must be at least 8 for an audit, got 7"):
        build_rows(model, INPUT_NAMES, None, None, 32, seed=0)


def test_texts_are_truncated_and_blank_ones_skipped(model, tokenizer):
    rows = build_rows(model, INPUT_NAMES, tokenizer, [" ", "a b c", "d"], 2, seed=0)
    assert [tokenizer.decode(row) for row in rows.token_inputs["input_ids"]] == ["a b", "d"]
    assert len(build_rows(model, INPUT_NAMES, tokenizer, ["a"] * 20, 2, seed=0).lengths) == MAX_TEXTS
    with pytest.raises(ValueError, match="The texts must have at least one token, got none"):
        build_rows(model, INPUT_NAMES, tokenizer, [" "], 2, seed=0)


def test_padded_batch_is_split_by_row(model):
    batch = {
        "input_ids": torch.tensor([[0, 5, 0, 6], [0, 0, 0, 0], [7, 8, 9, 9]]),
        "attention_mask": torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]),
        "token_type_ids": torch.tensor([[9, 0, 9, 1], [9, 9, 9, 9], [0, 0, 1, 1]]),
        "decoder_input_ids": torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        "labels": torch.zeros(3, 4),
    }
    rows = build_rows(model, INPUT_NAMES, None, batch, 3, seed=0)
    assert [row.tolist() for row in rows.token_inputs["input_ids"]] == [[5, 6], [7, 8, 9]]
    assert [row.tolist() for row in rows.token_inputs["token_type_ids"]] == [[0, 1], [0, 0, 1]]
    assert {name: value[:, 0].tolist() for name, value in rows.row_inputs.items()} == {"decoder_input_ids": [1, 3]}
    with pytest.raises(ValueError, match="`batch` must have at least one token, got an attention_mask of zeros"):
        build_rows(
            model, INPUT_NAMES, None, {"input_ids": batch["input_ids"][1:2], "attention_mask": torch.zeros(1, 4)}, 3, seed=0
        )
    with pytest.raises(ValueError, match="`batch` must have `input_ids`, got inputs_embeds"):
        build_rows(model, INPUT_NAMES, None, {"inputs_embeds": torch.zeros(1, 1, 6)}, 3, seed=0)


def test_decoder_ids_are_built_unless_derived():
    input_names = INPUT_NAMES | {"decoder_input_ids"}
    rows = build_rows(BartModel(BartConfig(**BART)), input_names, None, None, 8, seed=0)
    assert rows.row_inputs["decoder_input_ids"].shape == (4, 4)
    assert [int(row[-1]) for row in rows.token_inputs["input_ids"]] == [2, 2, 2, 2]
    assert build_rows(BartForSequenceClassification(BartConfig(**BART)), input_names, None, None, 8, seed=0).row_inputs == {}


def test_rows_are_selected_extended_and_changed(model):
    rows = build_rows(model, INPUT_NAMES, None, None, 3, seed=0)
    ids = rows.token_inputs["input_ids"]
    assert rows.select([2, 0]).lengths == [1, 3]
    assert rows.append_empty_row().lengths == [*rows.lengths, 0]
    longer = rows.extend_longest(4).token_inputs["input_ids"]
    assert [row.tolist() for row in longer] == [[*ids[0].tolist(), *[int(ids[0][0])] * 4]]
    for row, other in zip(ids, rows.replace_last_tokens().token_inputs["input_ids"], strict=True):
        assert torch.equal(row[:-1], other[:-1])
        assert row[-1] != other[-1]


def masks(placement):
    return ["".join("x" if is_token else "." for is_token in row) for row in placement.mask.tolist()]


def test_placements_of_tokens():
    assert masks(pad_right([3, 1, 0])) == ["xxx", "x..", "..."]
    assert masks(pad_right([3, 1], 2)) == ["xxx..", "x...."]
    assert masks(pad_left([3, 1], 2)) == ["..xxx", "....x"]
    assert masks(pad_between([3, 2, 1])) == ["x.x..x..", "x....x..", "x......."]
    assert masks(pad_between([7, 3])) == ["xx.xx.xx.x..", "x...x....x.."]


def test_fill_writes_values_over_a_background():
    placement = pad_left([2, 1], 1)
    filled = placement.fill([torch.tensor([5, 6]), torch.tensor([7])], torch.tensor([[1, 2, 3], [1, 2, 3]]))
    assert filled.tolist() == [[1, 5, 6], [1, 2, 7]]
