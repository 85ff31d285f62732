import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_maskattn.data.tokenizer_kinds import KINDS
from hf_maskattn.data.tokenizers import GENERATION_SPECIAL_TOKENS, SPECIAL_TOKENS, load_tokenizer, train_tokenizer

TEXTS = [
    "Schweizer Franken (1927-2002)",
    "Íslensk króna, Norsk krone",
    "franc suisse, couronne danoise",
    "Ελληνική δραχμή",
    "die Franken, die Kronen; die Drachmen",
]
LETTERS = "".join(sorted(set("".join(TEXTS))))
# Latin, Greek and Cyrillic letters with the marks that NFC joins them with.
ANY_LETTER = st.characters(max_codepoint=0x4FF, exclude_categories=["Cn", "Cs"]) | st.sampled_from("aeoA\u0301\u0308 ")


def _train(kind, **changes):
    return train_tokenizer(TEXTS, **{"kind": kind, "vocab_size": 400, "max_length": 16, **changes})


@pytest.fixture(scope="module")
def every_letter():
    """A tokenizer of kind `char` that knows every letter that `ANY_LETTER` draws."""
    letters = map(chr, range(0x500))
    return train_tokenizer(letters, kind="char", vocab_size=3000, max_length=16)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_and_settings(kind):
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
def test_a_tokenizer_for_generation_ends_every_text(kind):
    tokenizer = _train(kind, for_generation=True)
    assert tokenizer.convert_tokens_to_ids(list(GENERATION_SPECIAL_TOKENS)) == [0, 1, 2, 3]
    roles = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert roles == (0, 1, 2, 3)
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token) == (None,) * 3
    assert tokenizer("")["input_ids"] == [3]
    plain = _train(kind)(TEXTS[3])["input_ids"]
    assert [number + 1 for number in plain] + [3] == tokenizer(TEXTS[3])["input_ids"]
    assert tokenizer(text_target=TEXTS[3])["input_ids"] == tokenizer(TEXTS[3])["input_ids"]
    cut = tokenizer(TEXTS[0] * 3, truncation=True)["input_ids"]
    assert (len(cut), cut.count(3), cut[-1]) == (16, 1, 3)


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
def test_each_kind_cuts_in_its_own_way(kind, tokens):
    tokenizer = _train(kind)
    assert tokenizer.tokenize("die Krone,") == tokens


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic(kind):
    first, *others = (_train(kind, vocab_size=330).backend_tokenizer.to_str() for _ in range(4))
    assert all(other == first for other in others)


def test_it_loads_without_this_package(tmp_path):
    expected = {}
    for kind in KINDS:
        tokenizer = _train(kind)
        tokenizer.save_pretrained(tmp_path / kind)
        encoded = tokenizer("Króna [MASK] Franken", return_offsets_mapping=True)
        expected[kind] = [encoded["input_ids"], [list(pair) for pair in encoded["offset_mapping"]], True, 16, 0, 1, 2]
    program = f"""
import json, sys
from transformers import AutoTokenizer
results = {{}}
for kind in {KINDS!r}:
    t = AutoTokenizer.from_pretrained({str(tmp_path)!r} + "/" + kind)
    e = t("Króna [MASK] Franken", return_offsets_mapping=True)
    results[kind] = [e["input_ids"], e["offset_mapping"], t.is_fast, t.model_max_length,
                     t.pad_token_id, t.unk_token_id, t.mask_token_id]
assert "hf_maskattn" not in sys.modules
print(json.dumps(results))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_in_a_text_is_the_mask_token(kind):
    assert _train(kind)("die [MASK] Kronen")["input_ids"].count(2) == 1


def test_a_byte_level_mask_takes_the_space_before_it_along():
    tokenizer = _train("bpe")
    assert tokenizer.convert_ids_to_tokens(tokenizer("die [MASK] die")["input_ids"]) == ["die", "[MASK]", "Ġdie"]


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_point_into_the_original_text(kind):
    text = "die  KRÓNEN, (Kronen)"
    tokenizer = _train(kind, lowercase=True)
    encoded = tokenizer(text, return_offsets_mapping=True)
    spans = encoded["offset_mapping"]
    covered = {place for start, end in spans for place in range(start, end)}
    visible = {place for place, character in enumerate(text) if character != " "}
    assert spans == sorted(spans)
    assert covered == (set(range(len(text))) if kind == "char" else visible)


@given(st.text(ANY_LETTER, max_size=30))
def test_char_is_one_token_per_character_and_decodes_to_the_text(every_letter, text):
    composed = unicodedata.normalize("NFC", text)
    encoded = every_letter(text, return_offsets_mapping=True)
    known = [character if character in every_letter.get_vocab() or character == " " else "[UNK]" for character in composed]
    assert every_letter.convert_ids_to_tokens(encoded["input_ids"]) == [
        "▁" if character == " " else character for character in known
    ]
    if "[UNK]" not in known:
        assert every_letter.decode(encoded["input_ids"]) == composed
    if text == composed:
        assert encoded["offset_mapping"] == [(place, place + 1) for place in range(len(text))]


@given(st.text(ANY_LETTER, max_size=30))
def test_bpe_decodes_to_the_text(text):
    tokenizer = _train("bpe")
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("kind", ["word", "bpe", "wordpiece"])
def test_punctuation_marks_stand_alone(kind):
    tokenizer = train_tokenizer(["Sa., So., (Mo.)"] * 9, kind=kind, vocab_size=400, max_length=16)
    tokens = [token.lstrip("Ġ") for token in tokenizer.tokenize("Sa., So., (Mo.)")]
    assert [token for token in tokens if not token.isalpha()] == [".", ",", ".", ",", "(", ".", ")"]


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase_makes_upper_and_lower_case_the_same(kind):
    folded, kept = _train(kind, lowercase=True), _train(kind)
    assert folded("DIE Kronen")["input_ids"] == folded("die kronen")["input_ids"]
    assert kept("DIE Kronen")["input_ids"] != kept("die kronen")["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_composed_and_decomposed_letters_are_the_same(kind):
    tokenizer = _train(kind)
    assert tokenizer("kro\u0301na")["input_ids"] == tokenizer("króna")["input_ids"]


def test_words_beyond_the_vocabulary_are_the_rare_ones():
    tokenizer = _train("word", vocab_size=5)
    assert set(tokenizer.get_vocab()) == {*SPECIAL_TOKENS, "die", ","}


@pytest.mark.parametrize(
    ("kind", "changes", "error", "message"),
    [
        (
            "sentencepiece",
            {},
            ValueError,
            "kind='sentencepiece' is none of char, word, symbols, bpe, wordpiece; for a tokenizer that .* load_tokenizer",
        ),
        ("char", {"max_length": 0}, ValueError, "max_length=0 must be at least 1"),
        ("word", {"vocab_size": 4, "for_generation": True}, ValueError, r"\[PAD\], \[UNK\], \[BOS\], \[EOS\] and .* need 5"),
        ("word", {"vocab_size": 3}, ValueError, r"vocab_size=3 is too small: \[PAD\].* at least one token more need 4"),
        ("bpe", {"vocab_size": 258}, ValueError, "vocab_size=258 is too small for kind='bpe': .* alone need 259"),
        (
            "char",
            {"vocab_size": 20},
            ValueError,
            f"vocab_size=20 is too small for kind='char': .* alone need {len(LETTERS) + 3}",
        ),
        ("wordpiece", {"vocab_size": 20}, ValueError, "vocab_size=20 is too small for kind='wordpiece': .* alone need 79"),
    ],
)
def test_what_cannot_be_trained_is_told(kind, changes, error, message):
    with pytest.raises(error, match=message):
        _train(kind, **changes)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([], ValueError, "no text to train on: got 0 texts"),
        (["", " \n"], ValueError, "no text to train on: got 2 texts, all without a visible character"),
        ("one string", TypeError, r"texts is a single string \('one string'\); give a list of strings"),
        (["a", None], TypeError, r"texts\[1\] is NoneType; every text must be a string"),
    ],
)
def test_what_is_no_corpus_is_told(texts, error, message):
    with pytest.raises(error, match=message):
        train_tokenizer(texts, kind="char", vocab_size=100, max_length=16)


def test_exactly_the_alphabet_fits():
    assert len(_train("char", vocab_size=len(LETTERS) + 3)) == len(LETTERS) + 3
    assert len(_train("bpe", vocab_size=259)) == 259


def test_texts_may_come_from_a_generator():
    assert train_tokenizer((text for text in TEXTS), kind="char", vocab_size=100, max_length=16).vocab_size > 3


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
