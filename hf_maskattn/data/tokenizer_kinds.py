"""The kinds of tokenizers that can be trained: how each of them cuts a text into tokens and puts it together again."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TokenizerKind = Literal["char", "word", "symbols", "bpe", "wordpiece"]
KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
"""The kinds of tokenizers that can be trained."""

SPACE = "▁"
"""What a space looks like as a token of kind `char`."""

WORDS_AND_MARKS = Regex(r"\w+|[^\w\s]")
"""The words and punctuation marks of a text."""

_MARK = Regex(r" ?[^\w\s]")
_WITHOUT_LIMIT = 2**31


def train_kind(
    corpus: Sequence[str], special_tokens: list[AddedToken], *, kind: TokenizerKind, vocab_size: int, lowercase: bool
) -> Tokenizer:
    """Train the tokenizer of a kind.

    Args:
        corpus: The texts.
        special_tokens: The first tokens of the vocabulary, `[UNK]` among them.
        kind: How a text is cut.
        vocab_size: Largest number of tokens. The result has more where the alphabet alone is larger.
        lowercase: Whether upper and lower case are the same.

    Returns:
        The tokenizer.
    """
    return _BUILDERS[kind](corpus, special_tokens, vocab_size, lowercase)


def _normalizer(lowercase: bool) -> list[normalizers.Normalizer]:
    return [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]


def _build_char(corpus: Sequence[str], special_tokens: list[AddedToken], vocab_size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([*_normalizer(lowercase), normalizers.Replace(" ", SPACE)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    # Without a limit, so that rare characters do not silently become [UNK]; the caller compares the sizes.
    trainer = trainers.WordLevelTrainer(vocab_size=_WITHOUT_LIMIT, special_tokens=special_tokens, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _build_word(corpus: Sequence[str], special_tokens: list[AddedToken], vocab_size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(_normalizer(lowercase))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(WORDS_AND_MARKS, "removed", invert=True)
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=special_tokens, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _build_symbols(corpus: Sequence[str], special_tokens: list[AddedToken], vocab_size: int, lowercase: bool) -> Tokenizer:
    scratch = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    scratch.normalizer = normalizers.Sequence(_normalizer(lowercase))
    scratch.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(vocab_size=_WITHOUT_LIMIT, special_tokens=special_tokens, show_progress=False)
    scratch.train_from_iterator(corpus, trainer)
    # BPE without merges: a piece that is in the vocabulary is one token, any other falls into its characters.
    tokenizer = Tokenizer(models.BPE(vocab=scratch.get_vocab(), merges=[], unk_token="[UNK]", ignore_merges=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = scratch.normalizer, scratch.pre_tokenizer
    tokenizer.add_special_tokens(special_tokens)
    return tokenizer


def _build_bpe(corpus: Sequence[str], special_tokens: list[AddedToken], vocab_size: int, lowercase: bool) -> Tokenizer:
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
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _build_wordpiece(corpus: Sequence[str], special_tokens: list[AddedToken], vocab_size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(_normalizer(lowercase))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(WORDS_AND_MARKS, "removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    # The trainer numbers the "##" characters in the order of a hash map, which differs from run to run, and breaks
    # ties by these numbers. Given as first tokens they have fixed ones; the vocabulary then moves to a new model.
    first_tokens = [*map(str, special_tokens), *_continuing_characters(tokenizer, corpus)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first_tokens, show_progress=False)
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    scratch.train_from_iterator(corpus, trainer)
    tokenizer.model = models.WordPiece(vocab=scratch.get_vocab(), unk_token="[UNK]")
    tokenizer.add_special_tokens(special_tokens)
    return tokenizer


def _continuing_characters(tokenizer: Tokenizer, corpus: Sequence[str]) -> list[str]:
    characters: set[str] = set()
    for text in corpus:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            characters.update(word[1:])
    return [f"##{character}" for character in sorted(characters)]


_BUILDERS: dict[TokenizerKind, Callable[[Sequence[str], list[AddedToken], int, bool], Tokenizer]] = {
    "char": _build_char,
    "word": _build_word,
    "symbols": _build_symbols,
    "bpe": _build_bpe,
    "wordpiece": _build_wordpiece,
}
