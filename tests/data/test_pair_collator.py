import pytest
import torch
from transformers import DataCollatorForSeq2Seq
from transformers.trainer_pt_utils import LabelSmoother

from hf_maskattn import RNNSearchForConditionalGeneration
from hf_maskattn.data.pair_collator import PairCollator
from hf_maskattn.data.tokenizer_training import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["abcdef"], kind="char", vocab_size=20, max_length=99, for_generation=True)


@pytest.fixture
def collate(tokenizer, tiny_rnnsearch_config, monkeypatch):
    """Gives a model, and the batch of some rows that are padded on a side."""
    torch.manual_seed(0)
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).eval()
    rows = [{**tokenizer(source), "labels": tokenizer(target)["input_ids"]} for source, target in (("abc", "f"), ("a", "bcde"))]

    def run(side, collator=PairCollator):
        monkeypatch.setattr(tokenizer, "padding_side", side)
        return model, dict(collator(tokenizer, model=model)([dict(row) for row in rows]))

    return run


@pytest.mark.parametrize(("side", "mask"), [("right", [[1, 1, 0, 0, 0], [1] * 5]), ("left", [[0, 0, 0, 1, 1], [1] * 5])])
def test_real_target_tokens_are_those_that_labels_are_predicted_from(collate, side, mask):
    _, batch = collate(side)
    assert batch["decoder_attention_mask"].tolist() == mask
    assert torch.equal(batch["decoder_attention_mask"].bool(), batch["labels"] != -100)


def test_a_label_that_is_left_out_within_a_target_is_still_read(tokenizer, collate):
    model, _ = collate("left")
    rows = [{"input_ids": [4], "labels": [4, -100, 3]}, {"input_ids": [4], "labels": [3]}]
    batch = PairCollator(tokenizer, model=model)(rows)
    assert batch["decoder_attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert torch.equal(model(**batch).loss, model(**DataCollatorForSeq2Seq(tokenizer, model=model)(rows)).loss)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_loss_is_as_without_it(collate, side):
    model, batch = collate(side)
    assert torch.equal(model(**batch).loss, model(**collate(side, DataCollatorForSeq2Seq)[1]).loss)


def test_smoothed_labels_have_the_same_loss_on_either_side(collate):
    losses = []
    for side in ("right", "left"):
        model, batch = collate(side)
        labels = batch.pop("labels")
        losses.append(LabelSmoother(epsilon=0.1)(model(**batch), labels))
    torch.testing.assert_close(*losses)
