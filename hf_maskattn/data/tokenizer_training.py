"""Train a small tokenizer on your own texts, saved in the form that Hugging Face Transformers loads."""

from collections.abc import Callable, Iterable
from typing import Literal, get_args

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TokenizerKind = Literal["char", "word", "bpe", "wordpiece"]
KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
"""The kinds of tokenizers that can be trained."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[MASK]")
"""The special tokens of a trained tokenizer; their places are their ids."""

SPACE = "▁"
"""What a space looks like as a token of kind `char`."""

_WORDS_AND_MARKS = Regex(r"\w+|[^\w\s]")
_MARK = Regex(r" ?[^\w\s]")
_WITHOUT_LIMIT = 2**31


def train_tokenizer(
    texts: Iterable[str], *, kind: TokenizerKind, vocab_size: int, lowercase: bool = False, max_length: int
) -> PreTrainedTokenizerFast:
    """Train a tokenizer; the same texts give the same tokenizer.

    Every kind brings text into Unicode NFC first. `char`: a token per character, a space is the token "▁";
    decoding gives the text back. `word`: words and punctuation marks; rare ones become `[UNK]`. `bpe`: pieces of
    UTF-8 bytes, never `[UNK]`; decoding gives the text back. `wordpiece`: pieces of words, "##" where one goes on.
    Apart from `char`, a punctuation mark is a token of its own.

    Args:
        texts: The corpus. All of it is held in memory.
        kind: How a text is cut.
        vocab_size: Largest number of tokens, the three special ones included.
        lowercase: Whether upper and lower case are the same.
        max_length: Number of tokens from which on a text is cut, where truncation is asked for.

    Returns:
        A fast tokenizer with `[PAD]` = 0, `[UNK]` = 1, `[MASK]` = 2 and nothing added before or after a text. Saved
        with `save_pretrained`, it loads with `AutoTokenizer` and without this package.

    Raises:
        TypeError: `texts` is a single string, or holds something that is none.
        ValueError: Unknown kind, no text, `max_length` below one, or a `vocab_size` that does not hold the alphabet.

    Source:
        BPE: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; WordPiece: Wu et al. 2016,
        https://arxiv.org/abs/1609.08144; both as implemented by Hugging Face tokenizers.
    """
    if kind not in KINDS:
        raise ValueError(
            f"kind={kind!r} is none of {', '.join(KINDS)}; for a tokenizer that exists, give its folder or its name "
            "on the Hub to load_tokenizer"
        )
    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1")
    if vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(
            f"vocab_size={vocab_size} is too small: {', '.join(SPECIAL_TOKENS)} and at least one token more need "
            f"{len(SPECIAL_TOKENS) + 1}"
        )
    corpus = _check_texts(texts)
    tokenizer = _BUILDERS[kind](corpus, vocab_size, lowercase)
    if tokenizer.get_vocab_size() > vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is too small for kind={kind!r}: the {len(SPECIAL_TOKENS)} special tokens and "
            f"the alphabet of these texts alone need {tokenizer.get_vocab_size()}"
        )
    pad, unknown, mask = _special_tokens(kind)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _check_texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"texts is a single string ({texts[:20]!r}); give a list of strings")
    corpus = list(texts)
    for row, text in enumerate(corpus):
        if not isinstance(text, str):
            raise TypeError(f"texts[{row}] is {type(text).__name__}; every text must be a string")
    if not any(text.strip() for text in corpus):
        raise ValueError(f"no text to train on: got {len(corpus)} texts, all without a visible character")
    return corpus


def _special_tokens(kind: TokenizerKind) -> list[AddedToken]:
    # A byte-level piece brings its space along, so a mask that stands for it does too (as in RoBERTa).
    return [
        AddedToken(token, special=True, normalized=False, lstrip=kind == "bpe" and token == "[MASK]")
        for token in SPECIAL_TOKENS
    ]


def _normalizer(lowercase: bool) -> list[normalizers.Normalizer]:
    return [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]


def _build_char(corpus: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([*_normalizer(lowercase), normalizers.Replace(" ", SPACE)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    # Without a limit, so that rare characters do not silently become [UNK]; the caller compares the sizes.
    trainer = trainers.WordLevelTrainer(vocab_size=_WITHOUT_LIMIT, special_tokens=_special_tokens("char"), show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _build_word(corpus: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(_normalizer(lowercase))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_WORDS_AND_MARKS, "removed", invert=True)
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=_special_tokens("word"), show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _build_bpe(corpus: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(_normalizer(lowercase))
    # ByteLevel alone joins marks that follow each other, and a token ".," would lie in two words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_MARK, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_special_tokens("bpe"),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _build_wordpiece(corpus: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(_normalizer(lowercase))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_WORDS_AND_MARKS, "removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    # The trainer numbers the "##" characters in the order of a hash map, which differs from run to run, and breaks
    # ties by these numbers. Given as first tokens they have fixed ones; the vocabulary then moves to a new model.
    first_tokens = [*SPECIAL_TOKENS, *_continuing_characters(tokenizer, corpus)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first_tokens, show_progress=False)
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    scratch.train_from_iterator(corpus, trainer)
    tokenizer.model = models.WordPiece(vocab=scratch.get_vocab(), unk_token="[UNK]")
    tokenizer.add_special_tokens(_special_tokens("wordpiece"))
    return tokenizer


def _continuing_characters(tokenizer: Tokenizer, corpus: list[str]) -> list[str]:
    characters: set[str] = set()
    for text in corpus:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            characters.update(word[1:])
    return [f"##{character}" for character in sorted(characters)]


_BUILDERS: dict[TokenizerKind, Callable[[list[str], int, bool], Tokenizer]] = {
    "char": _build_char,
    "word": _build_word,
    "bpe": _build_bpe,
    "wordpiece": _build_wordpiece,
}
