import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_maskattn.data.tokenizers import (
    GENERATION_SPECIAL_TOKENS,
    KINDS,
    SPECIAL_TOKENS,
    batch_by_length,
    load_tokenizer,
    train_tokenizer,
)

TEXTS = [
    "Schweizer Franken (1927-2002)",
    "Íslensk króna, Norsk krone",
    "franc suisse, couronne danoise",
    "Ελληνική δραχμή",
    "die Franken, die Kronen; die Drachmen",
]
LETTERS = "".join(sorted(set("".join(TEXTS))))
# Latin, Greek and Cyrillic letters, and combining marks that NFC composes with them.
ANY_LETTER = st.characters(max_codepoint=0x4FF, exclude_categories=["Cn", "Cs"]) | st.sampled_from("aeoA\u0301\u0308 ")


def _train(kind, **changes):
    return train_tokenizer(TEXTS, **{"kind": kind, "vocab_size": 400, "max_length": 16, **changes})


@pytest.fixture(scope="module")
def every_letter():
    """Tokenizer of kind `char` with all letters of `ANY_LETTER`."""
    letters = map(chr, range(0x500))
    return train_tokenizer(letters, kind="char", vocab_size=3000, max_length=16)


@pytest.fixture(scope="module")
def bpe():
    return _train("bpe")


@pytest.mark.parametrize("kind", KINDS)
def test_train_tokenizer_special_tokens_and_settings(kind):
    tokenizer = _train(kind)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (0, 1, 2)
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.bos_token, tokenizer.eos_token) == (None,) * 4
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert tokenizer.model_max_length == 16
    assert tokenizer.clean_up_tokenization_spaces is False
    assert len(tokenizer) <= 400
    assert len(tokenizer(TEXTS[0] * 3, truncation=True)["input_ids"]) == 16


@pytest.mark.parametrize("kind", KINDS)
def test_train_tokenizer_for_generation_appends_eos(kind):
    tokenizer = _train(kind, for_generation=True)
    assert tokenizer.convert_tokens_to_ids(list(GENERATION_SPECIAL_TOKENS)) == [0, 1, 2, 3]
    roles = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert roles == (0, 1, 2, 3)
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token) == (None,) * 3
    assert tokenizer("")["input_ids"] == [3]
    plain = _train(kind)(TEXTS[3])["input_ids"]
    assert [number + 1 for number in plain] + [3] == tokenizer(TEXTS[3])["input_ids"]
    assert tokenizer(text_target=TEXTS[3])["input_ids"] == tokenizer(TEXTS[3])["input_ids"]
    truncated = tokenizer(TEXTS[0] * 3, truncation=True)["input_ids"]
    assert (len(truncated), truncated.count(3), truncated[-1]) == (16, 1, 3)


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        ("char", ["d", "i", "e", "▁", "K", "r", "o", "n", "e", ","]),
        ("word", ["die", "[UNK]", ","]),
        ("symbols", ["die", "[UNK]", "[UNK]", "[UNK]", "[UNK]", "[UNK]", "[UNK]"]),
        ("bpe", ["die", "ĠKron", "e", ","]),
        ("wordpiece", ["die", "Kron", "##e", ","]),
    ],
)
def test_train_tokenizer_kinds(kind, tokens):
    tokenizer = _train(kind)
    assert tokenizer.tokenize("die Krone,") == tokens


@pytest.mark.parametrize("kind", KINDS)
def test_train_tokenizer_is_deterministic(kind):
    first, *others = (_train(kind, vocab_size=330).backend_tokenizer.to_str() for _ in range(3))
    assert all(other == first for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer_loads_as_plain_fast_tokenizer(tmp_path, kind):
    tokenizer = _train(kind)
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert type(loaded) is PreTrainedTokenizerFast
    text = "Króna [MASK] Franken"
    assert loaded(text, return_offsets_mapping=True).data == tokenizer(text, return_offsets_mapping=True).data


@pytest.mark.slow
def test_tokenizer_loads_without_this_package(tmp_path):
    expected = {}
    for kind in KINDS:
        tokenizer = _train(kind)
        tokenizer.save_pretrained(tmp_path / kind)
        encoded = tokenizer("Króna [MASK] Franken", return_offsets_mapping=True)
        expected[kind] = [encoded["input_ids"], [list(pair) for pair in encoded["offset_mapping"]], True, 16, 0, 1, 2]
    program = f"""
import json, sys
sys.modules["hf_maskattn"] = None
from transformers import AutoTokenizer, PreTrainedTokenizerFast
results = {{}}
for kind in {KINDS!r}:
    t = AutoTokenizer.from_pretrained({str(tmp_path)!r} + "/" + kind)
    assert type(t) is PreTrainedTokenizerFast
    e = t("Króna [MASK] Franken", return_offsets_mapping=True)
    results[kind] = [e["input_ids"], e["offset_mapping"], t.is_fast, t.model_max_length,
                     t.pad_token_id, t.unk_token_id, t.mask_token_id]
print(json.dumps(results))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_mask_in_text_is_the_mask_token(kind):
    assert _train(kind)("die [MASK] Kronen")["input_ids"].count(2) == 1


def test_byte_level_mask_includes_leading_space():
    tokenizer = _train("bpe")
    assert tokenizer.convert_ids_to_tokens(tokenizer("die [MASK] die")["input_ids"]) == ["die", "[MASK]", "Ġdie"]


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_refer_to_the_original_text(kind):
    text = "die  KRÓNEN, (Kronen)"
    tokenizer = _train(kind, lowercase=True)
    encoded = tokenizer(text, return_offsets_mapping=True)
    spans = encoded["offset_mapping"]
    covered = {index for start, end in spans for index in range(start, end)}
    visible = {index for index, character in enumerate(text) if character != " "}
    assert spans == sorted(spans)
    assert covered == (set(range(len(text))) if kind == "char" else visible)


@given(st.text(ANY_LETTER, max_size=30))
def test_char_has_one_token_per_character_and_is_lossless(every_letter, text):
    composed = unicodedata.normalize("NFC", text)
    encoded = every_letter(text, return_offsets_mapping=True)
    known = [character if character in every_letter.get_vocab() or character == " " else "[UNK]" for character in composed]
    assert every_letter.convert_ids_to_tokens(encoded["input_ids"]) == [
        "▁" if character == " " else character for character in known
    ]
    if "[UNK]" not in known:
        assert every_letter.decode(encoded["input_ids"]) == composed
    if text == composed:
        assert encoded["offset_mapping"] == [(index, index + 1) for index in range(len(text))]


@given(st.text(ANY_LETTER, max_size=30))
def test_bpe_is_lossless(bpe, text):
    assert bpe.decode(bpe(text)["input_ids"]) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("kind", ["word", "bpe", "wordpiece"])
def test_punctuation_marks_are_tokens(kind):
    tokenizer = train_tokenizer(["Sa., So., (Mo.)"] * 9, kind=kind, vocab_size=400, max_length=16)
    tokens = [token.lstrip("Ġ") for token in tokenizer.tokenize("Sa., So., (Mo.)")]
    assert [token for token in tokens if not token.isalpha()] == [".", ",", ".", ",", "(", ".", ")"]


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase(kind):
    lowercase, cased = _train(kind, lowercase=True), _train(kind)
    assert lowercase("DIE Kronen")["input_ids"] == lowercase("die kronen")["input_ids"]
    assert cased("DIE Kronen")["input_ids"] != cased("die kronen")["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_normalized_to_nfc(kind):
    tokenizer = _train(kind)
    assert tokenizer("kro\u0301na")["input_ids"] == tokenizer("króna")["input_ids"]


def test_word_vocabulary_has_the_frequent_words():
    tokenizer = _train("word", vocab_size=5)
    assert set(tokenizer.get_vocab()) == {*SPECIAL_TOKENS, "die", ","}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("sentencepiece", {}, "kind must be one of char, word, symbols, bpe, wordpiece, got 'sentencepiece'. Use load_tok"),
        ("char", {"max_length": 0}, "max_length must be at least 1, got 0"),
        ("word", {"vocab_size": 4, "for_generation": True}, r"must be at least 5 .* \[BOS\], \[EOS\] and .*, got 4"),
        ("word", {"vocab_size": 3}, r"vocab_size must be at least 4 \(\[PAD\].* and one more token\), got 3"),
        ("bpe", {"vocab_size": 258}, "vocab_size must be at least 259 for kind='bpe' .*, got 258"),
        ("char", {"vocab_size": 20}, f"vocab_size must be at least {len(LETTERS) + 3} for kind='char' .*, got 20"),
        ("wordpiece", {"vocab_size": 20}, "vocab_size must be at least 79 for kind='wordpiece' .*, got 20"),
        ("word", {"min_frequency": 0}, r"min_frequency must be at least 1, got 0\."),
        ("char", {"min_frequency": 2}, r"min_frequency must be 1 with kind='char', which keeps every character, got 2\."),
        ("symbols", {"min_frequency": 2}, r"min_frequency must be 1 with kind='symbols'"),
        (
            "word",
            {"min_frequency": 100},
            r"min_frequency must be lower than 100, because no word .* Use min_frequency=1 \(in a recipe data\.min_freq",
        ),
    ],
)
def test_train_tokenizer_rejects_invalid_arguments(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        _train(kind, **changes)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([], ValueError, "texts must contain a visible character, got 0 texts"),
        (["", " \n"], ValueError, "texts must contain a visible character, got 2 texts"),
        ("one string", TypeError, r"texts must be a list of strings, got a single string \('one string'\)"),
        (["a", None], TypeError, r"texts\[1\] must be a string, got NoneType"),
    ],
)
def test_train_tokenizer_rejects_invalid_texts(texts, error, message):
    with pytest.raises(error, match=message):
        train_tokenizer(texts, kind="char", vocab_size=100, max_length=16)


def test_train_tokenizer_minimal_vocab_size():
    assert len(_train("char", vocab_size=len(LETTERS) + 3)) == len(LETTERS) + 3
    assert len(_train("bpe", vocab_size=259)) == 259


WORDS = ["r e a d", "d ' o r", "é", "c h a t"]
PHONEMES = ["R EH D", "D AO R", "t͡ʃ ã"]


@pytest.fixture(scope="module")
def symbols():
    """Tokenizer whose tokens are letters and phonemes."""
    return train_tokenizer(WORDS + PHONEMES, kind="symbols", vocab_size=60, max_length=16, for_generation=True)


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
def test_symbols_split_other_words_into_characters(symbols, text, tokens):
    assert symbols(text).tokens() == [*tokens, "[EOS]"]


def test_symbols_decode_with_spaces(symbols):
    for text in WORDS + PHONEMES:
        assert symbols.decode(symbols(text)["input_ids"], skip_special_tokens=True) == text


def test_symbols_must_all_fit_into_the_vocabulary():
    texts = [f"w{number}" for number in range(30)]
    with pytest.raises(ValueError, match=r"vocab_size must be at least 33 for kind='symbols' \(3 special tokens .*, got 32"):
        train_tokenizer(texts, kind="symbols", vocab_size=32, max_length=9)
    assert len(train_tokenizer(texts, kind="symbols", vocab_size=33, max_length=9)) == 33


@pytest.fixture
def folder(tmp_path):
    train_tokenizer(["a b c"], kind="char", vocab_size=20, max_length=16).save_pretrained(tmp_path / "char")
    return tmp_path / "char"


@pytest.mark.parametrize("path_type", [str, Path])
def test_load_tokenizer_of_folder(folder, path_type):
    tokenizer = load_tokenizer(path_type(folder))
    assert tokenizer.tokenize("a b") == ["a", "▁", "b"]
    assert tokenizer.model_max_length == 16


def test_load_tokenizer_max_length(folder):
    truncated = load_tokenizer(folder, max_length=3)("a b c", truncation=True)["input_ids"]
    assert truncated == load_tokenizer(folder)("a b")["input_ids"]


def test_load_tokenizer_names_missing_tokenizer():
    message = r"the tokenizer 'owner/name' is neither a local folder nor could it be loaded from the Hub: .*train_tokenizer"
    with pytest.raises(FileNotFoundError, match=f"(?s){message}"):
        load_tokenizer("owner/name")


def test_load_tokenizer_rejects_folder_without_tokenizer(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)could not be loaded as a tokenizer: .*must contain the tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_load_tokenizer_requires_padding_token(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="[UNK]").save_pretrained(tmp_path / "b")
    with pytest.raises(ValueError, match=r"must have a padding token\. .*add_special_tokens\({\"pad_token\": \"\[PAD\]\"}\)"):
        load_tokenizer(tmp_path / "b")


def test_load_tokenizer_requires_fast_tokenizer(monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name, **settings: Slow())
    with pytest.raises(ValueError, match=r"the tokenizer 'slow' must be fast, .* offsets are required, got Slow"):
        load_tokenizer("slow")


def test_word_tokenizer_drops_words_below_min_frequency():
    texts = ["a film", "a good film", "a bad day"]
    tokenizer = train_tokenizer(texts, kind="word", vocab_size=40, min_frequency=2, max_length=9)
    assert set(tokenizer.get_vocab()) == {*SPECIAL_TOKENS, "a", "film"}
    assert tokenizer("a bad film")["input_ids"].count(tokenizer.unk_token_id) == 1


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_min_frequency_limits_merges(kind):
    assert len(_train(kind, min_frequency=100)) < len(_train(kind, min_frequency=1)) == len(_train(kind))


def test_batch_by_length_makes_smaller_batches_of_long_texts():
    assert list(batch_by_length(["a" * 200_000, "b", "", "c" * 60_000, "d" * 60_000, "e"], 4)) == [[0], [3, 4], [1, 5]]
    assert list(batch_by_length(["a" * 2**20], 4)) == [[0]]
