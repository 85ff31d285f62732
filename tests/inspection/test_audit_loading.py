import pytest
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from hf_maskattn.data.tokenizer_training import train_tokenizer
from hf_maskattn.inspection.audit_loading import load_model, load_tokenizer_if_any
from tests.heads import HEADS, build_head

TINY = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.mark.parametrize("head", HEADS)
def test_our_heads_come_back(tiny_config, tmp_path, head):
    build_head(head, tiny_config).save_pretrained(tmp_path)
    assert type(load_model(tmp_path)).__name__ == head


def test_heads_of_others_come_back(tmp_path):
    BertForSequenceClassification(BertConfig(**TINY)).save_pretrained(tmp_path)
    assert type(load_model(str(tmp_path))) is BertForSequenceClassification


def test_a_class_that_nobody_knows_is_loaded_as_the_bare_model(tmp_path):
    model = BertModel(BertConfig(**TINY))
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"BertModel"', '"BertForNothing"'))
    assert type(load_model(tmp_path)) is BertModel


def test_no_such_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the model '.*nowhere' is neither a folder here nor"):
        load_model(tmp_path / "nowhere")


def test_a_tokenizer_is_loaded_and_never_made_up(tmp_path):
    BertModel(BertConfig(**TINY)).save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 5  # special tokens alone, from no file
    assert load_tokenizer_if_any(tmp_path) is None
    train_tokenizer(["a b"], kind="word", vocab_size=20, max_length=8).save_pretrained(tmp_path)
    assert "b" in load_tokenizer_if_any(tmp_path).get_vocab()
