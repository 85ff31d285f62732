import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_maskattn.data.tokenizer_loading import load_tokenizer
from hf_maskattn.data.tokenizer_training import train_tokenizer


@pytest.fixture
def folder(tmp_path):
    train_tokenizer(["a b c"], kind="char", vocab_size=20, max_length=16).save_pretrained(tmp_path / "char")
    return tmp_path / "char"


@pytest.mark.parametrize("as_what", [str, lambda path: path])
def test_a_folder_is_loaded(folder, as_what):
    tokenizer = load_tokenizer(as_what(folder))
    assert tokenizer.tokenize("a b") == ["a", "▁", "b"]
    assert tokenizer.model_max_length == 16


def test_max_length_replaces_the_stored_one(folder):
    assert (
        load_tokenizer(folder, max_length=3)("a b c", truncation=True)["input_ids"]
        == load_tokenizer(folder)("a b")["input_ids"]
    )


def test_what_does_not_exist_is_named(tmp_path):
    message = r"the tokenizer 'owner/name' is neither a folder here nor could it be loaded from the Hub: .*train_tokenizer"
    with pytest.raises(FileNotFoundError, match=f"(?s){message}"):
        load_tokenizer("owner/name")


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)could not be read as a tokenizer: .*must hold tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_cannot_pad_is_refused(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="[UNK]").save_pretrained(tmp_path / "b")
    with pytest.raises(ValueError, match=r"has no pad token; .*add_special_tokens\({\"pad_token\": \"\[PAD\]\"}\)"):
        load_tokenizer(tmp_path / "b")


def test_a_slow_tokenizer_is_refused(monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name, **settings: Slow())
    with pytest.raises(ValueError, match=r"the tokenizer 'slow' \(Slow\) is not fast, but character offsets are needed"):
        load_tokenizer("slow")
