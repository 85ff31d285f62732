import pytest

from hf_maskattn.data.tokenizer_training import train_tokenizer

WORDS = ["r e a d", "d ' o r", "é", "c h a t"]
PHONEMES = ["R EH D", "D AO R", "t͡ʃ ã"]


@pytest.fixture(scope="module")
def symbols():
    """Letters and phonemes, each a token."""
    return train_tokenizer(WORDS + PHONEMES, kind="symbols", vocab_size=60, max_length=16, for_generation=True)


def _tokens(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("r e a d", ["r", "e", "a", "d"]),
        ("read", ["r", "e", "a", "d"]),
        ("re\u0301a", ["r", "é", "a"]),
        ("R EH  D", ["R", "EH", "D"]),
        ("t͡ʃ ã", ["t͡ʃ", "ã"]),
        ("d'or", ["d", "'", "o", "r"]),
        ("xray", ["[UNK]", "r", "a", "[UNK]"]),
        ("", []),
    ],
)
def test_a_word_that_is_no_symbol_falls_into_its_characters(symbols, text, tokens):
    assert _tokens(symbols, text) == [*tokens, "[EOS]"]


def test_symbols_decode_apart_by_spaces(symbols):
    for text in WORDS + PHONEMES:
        assert symbols.decode(symbols(text)["input_ids"], skip_special_tokens=True) == text


def test_every_symbol_has_a_place_or_the_vocabulary_is_too_small():
    texts = [f"w{number}" for number in range(30)]
    with pytest.raises(ValueError, match=r"vocab_size=32 is too small for kind='symbols': the 3 special tokens .* need 33"):
        train_tokenizer(texts, kind="symbols", vocab_size=32, max_length=9)
    assert len(train_tokenizer(texts, kind="symbols", vocab_size=33, max_length=9)) == 33
