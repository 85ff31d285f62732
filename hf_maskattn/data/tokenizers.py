"""Trains small tokenizers on your own texts, and loads tokenizers. Importing it does not import torch or transformers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from hf_maskattn.tokenization import MaskAttnTokenizer

TokenizerKind = Literal["char", "word", "symbols", "bpe", "wordpiece"]
KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
"""Kinds of tokenizers that can be trained."""

KEEP_EVERY_CHARACTER: tuple[TokenizerKind, ...] = ("char", "symbols")
"""Kinds whose vocabulary has every character of the corpus, however rare."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[MASK]")
"""Special tokens of a tokenizer for encoders, in the order of their ids."""

GENERATION_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
"""Special tokens of a tokenizer for encoder-decoders, in the order of their ids."""

BATCHES_PER_WINDOW = 64
"""Batches whose texts are sorted by length together."""

SPACE = "▁"
"""Token of a space in the kind `char`."""

WORDS_AND_PUNCTUATION = Regex(r"\w+|[^\w\s]")
"""Pattern of words and punctuation marks."""

_TOKEN_ROLES = {"[PAD]": "pad_token", "[UNK]": "unk_token", "[MASK]": "mask_token", "[BOS]": "bos_token", "[EOS]": "eos_token"}
_PUNCTUATION = Regex(r" ?[^\w\s]")
_UNLIMITED = 2**31
_MAX_KNOWN_LENGTH = 2**20
"""A tokenizer without a limit has a `model_max_length` far above this number."""

DEFAULT_MAX_LENGTH = 512
"""Maximum number of tokens where neither a recipe nor a tokenizer has one."""

_CHARACTERS_PER_BATCH = 2**17
"""With padding: batches of long texts are smaller, because memory grows with the characters."""


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: TokenizerKind,
    vocab_size: int,
    min_frequency: int = 1,
    lowercase: bool = False,
    max_length: int,
    for_generation: bool = False,
) -> "MaskAttnTokenizer":
    """Train a tokenizer; training is deterministic.

    Every kind normalizes text to Unicode NFC. `char`: one token per character, a space is the token "▁"; decoding is lossless.
    `word`: words and punctuation marks; those beyond `vocab_size` or below `min_frequency` become `[UNK]`. `symbols`: the units
    that white space separates in the corpus, such as phonemes and letters; any other word is split into its characters, so that
    "read" and "r e a d" are the same. `bpe`: pieces of UTF-8 bytes, never `[UNK]`; decoding is lossless. `wordpiece`: pieces of
    words, with "##" for continuing pieces. Except in `char` and `symbols`, each punctuation mark is a token.

    Source and target of a text-to-text model share a tokenizer: train it on both.

    Args:
        texts: The corpus, which is held in memory.
        kind: Kind of tokenizer.
        vocab_size: Maximum size of the vocabulary, special tokens included.
        min_frequency: Number of times that a word must occur in the corpus to be a token (`word`), or a pair of pieces to be
            merged (`bpe`, `wordpiece`). Must be 1 for `char` and `symbols`, which keep every character.
        lowercase: Whether to convert texts to lower case.
        max_length: Maximum number of tokens of a text if truncation is requested.
        for_generation: Whether the tokenizer is for a text-to-text model, which needs `[BOS]` and `[EOS]`.

    Returns:
        A fast tokenizer with `[PAD]` = 0, `[UNK]` = 1, `[MASK]` = 2 that adds no special tokens to a text; or, for generation,
        with `[PAD]` = 0, `[UNK]` = 1, `[BOS]` = 2, `[EOS]` = 3 that appends `[EOS]` to each text, also if truncated. After
        `save_pretrained`, `AutoTokenizer` loads it without this package.

    Raises:
        TypeError: `texts` is a single string, or contains other types.
        ValueError: Unknown kind, no text, `max_length` or `min_frequency` below one, a `min_frequency` that the kind does not
            have or that no word reaches, or a `vocab_size` that is too small for the alphabet.

    Source:
        BPE: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; WordPiece: Wu et al. 2016,
        https://arxiv.org/abs/1609.08144; both as implemented by Hugging Face tokenizers.
    """
    from hf_maskattn.tokenization import MaskAttnTokenizer

    if kind not in KINDS:
        raise ValueError(
            f"kind must be one of {', '.join(KINDS)}, got {kind!r}. Use load_tokenizer for an existing tokenizer, with its "
            "folder or its name on the Hub."
        )
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}.")
    if min_frequency < 1:
        raise ValueError(f"min_frequency must be at least 1, got {min_frequency}.")
    if min_frequency > 1 and kind in KEEP_EVERY_CHARACTER:
        raise ValueError(f"min_frequency must be 1 with kind={kind!r}, which keeps every character, got {min_frequency}.")
    names = GENERATION_SPECIAL_TOKENS if for_generation else SPECIAL_TOKENS
    if vocab_size <= len(names):
        raise ValueError(
            f"vocab_size must be at least {len(names) + 1} ({', '.join(names)} and one more token), got {vocab_size}."
        )
    corpus = _check_texts(texts)
    special_tokens = [_special_token(name, kind) for name in names]
    normalization = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    settings = {"special_tokens": special_tokens, "vocab_size": vocab_size, "min_frequency": min_frequency}
    tokenizer = _BUILDERS[kind](corpus, normalization, {**settings, "show_progress": False})
    if kind == "word" and tokenizer.get_vocab_size() == len(names):
        raise ValueError(
            f"min_frequency must be lower than {min_frequency}, because no word of these texts occurs so often and every one "
            "would be unknown. Use min_frequency=1 (in a recipe data.min_frequency=1), or more texts."
        )
    if tokenizer.get_vocab_size() > vocab_size:
        raise ValueError(
            f"vocab_size must be at least {tokenizer.get_vocab_size()} for kind={kind!r} ({len(names)} special tokens and the "
            f"alphabet of these texts), got {vocab_size}."
        )
    if for_generation:
        _append_eos_token(tokenizer)
    return MaskAttnTokenizer(
        tokenizer_object=tokenizer,
        **{_TOKEN_ROLES[name]: token for name, token in zip(names, special_tokens, strict=True)},
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def resolve_max_length(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the maximum number of tokens that a tokenizer states, or `DEFAULT_MAX_LENGTH` if it states none."""
    limit = tokenizer.model_max_length
    return limit if limit <= _MAX_KNOWN_LENGTH else DEFAULT_MAX_LENGTH


def batch_by_length(texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
    """Yield the indices of batches of the texts with a visible character, longest first, smaller where texts are long."""
    order = sorted((index for index, text in enumerate(texts) if text.strip()), key=lambda index: -len(texts[index]))
    start = 0
    while start < len(order):
        size = max(1, min(batch_size, _CHARACTERS_PER_BATCH // len(texts[order[start]])))
        yield order[start : start + size]
        start += size


def load_tokenizer(
    name_or_folder: str | Path, *, max_length: int | None = None, needs_padding: bool = True
) -> "PreTrainedTokenizerFast":
    """Load a tokenizer that this package supports: a fast one with a padding token.

    Args:
        name_or_folder: Folder written by `save_pretrained`, or a name on the Hub.
        max_length: Overrides the maximum number of tokens of the tokenizer; `None` keeps it.
        needs_padding: Whether it must have a padding token.

    Returns:
        The tokenizer. A plain `PreTrainedTokenizerFast` is loaded as a `MaskAttnTokenizer`.

    Raises:
        FileNotFoundError: The folder or name does not exist, or the Hub cannot be reached.
        ValueError: The tokenizer is not fast, has no padding token, or its files are invalid.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from hf_maskattn.tokenization import MaskAttnTokenizer

    settings = {} if max_length is None else {"model_max_length": max_length}
    name = str(name_or_folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=False, **settings)
        if type(tokenizer) is PreTrainedTokenizerFast:  # saved by versions before 0.2
            tokenizer = MaskAttnTokenizer.from_pretrained(name_or_folder, trust_remote_code=False, **settings)
        if type(tokenizer) is MaskAttnTokenizer and (remote_code := (tokenizer.init_kwargs.get("auto_map") or {})):
            raise ValueError(f"it requires remote code ({remote_code}), which is not run without trust_remote_code")
    except OSError as error:
        raise FileNotFoundError(
            f"the tokenizer {name!r} is neither a local folder nor could it be loaded from the Hub: {str(error).rstrip('.')}. "
            "Check the name and the network, or train one with train_tokenizer."
        ) from error
    except Exception as error:
        raise ValueError(
            f"{name!r} could not be loaded as a tokenizer: {str(error).rstrip('.')}. A folder must contain the tokenizer.json "
            "that save_pretrained writes."
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer {name!r} must be fast, because character offsets are required, got {type(tokenizer).__name__}. Use "
            "one with a tokenizer.json, or train one with train_tokenizer."
        )
    if needs_padding and tokenizer.pad_token_id is None:
        raise ValueError(
            f"the tokenizer {name!r} must have a padding token. Load it with AutoTokenizer, call "
            'add_special_tokens({"pad_token": "[PAD]"}), save it with save_pretrained, and use that folder.'
        )
    return tokenizer


def is_unknown(ids: Iterable[int], special_tokens_mask: Iterable[int], unk_token_id: int | None) -> bool:
    """Return whether a text has tokens other than special ones and padding, and all of them are unknown."""
    tokens = {number for number, is_special in zip(ids, special_tokens_mask, strict=True) if not is_special}
    return tokens == {unk_token_id}


def _check_texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of strings, got a single string ({texts[:20]!r}).")
    corpus = list(texts)
    for index, text in enumerate(corpus):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] must be a string, got {type(text).__name__}.")
    if not any(text.strip() for text in corpus):
        raise ValueError(f"texts must contain a visible character, got {len(corpus)} texts without one.")
    return corpus


def _special_token(name: str, kind: TokenizerKind) -> AddedToken:
    # A byte-level token includes its leading space, so a mask replaces the space too, as in RoBERTa.
    return AddedToken(name, special=True, normalized=False, lstrip=kind == "bpe" and name == "[MASK]")


def _append_eos_token(tokenizer: Tokenizer) -> None:
    template = processors.TemplateProcessing(
        single="$A [EOS]", pair="$A [EOS] $B [EOS]", special_tokens=[("[EOS]", tokenizer.token_to_id("[EOS]"))]
    )
    current = tokenizer.post_processor
    tokenizer.post_processor = template if current is None else processors.Sequence([current, template])


def _build_char(corpus: Sequence[str], normalization: list[normalizers.Normalizer], settings: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([*normalization, normalizers.Replace(" ", SPACE)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    # Unlimited, so that rare characters do not silently become [UNK]; the caller checks the size.
    trainer = trainers.WordLevelTrainer(**{**settings, "vocab_size": _UNLIMITED})
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _build_word(corpus: Sequence[str], normalization: list[normalizers.Normalizer], settings: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(normalization)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(WORDS_AND_PUNCTUATION, "removed", invert=True)
    tokenizer.train_from_iterator(corpus, trainers.WordLevelTrainer(**settings))
    return tokenizer


def _build_symbols(corpus: Sequence[str], normalization: list[normalizers.Normalizer], settings: dict[str, Any]) -> Tokenizer:
    scratch = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    scratch.normalizer = normalizers.Sequence(normalization)
    scratch.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(**{**settings, "vocab_size": _UNLIMITED})
    scratch.train_from_iterator(corpus, trainer)
    # BPE without merges: a piece in the vocabulary is one token, any other piece is split into characters.
    tokenizer = Tokenizer(models.BPE(vocab=scratch.get_vocab(), merges=[], unk_token="[UNK]", ignore_merges=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = scratch.normalizer, scratch.pre_tokenizer
    tokenizer.add_special_tokens(settings["special_tokens"])
    return tokenizer


def _build_bpe(corpus: Sequence[str], normalization: list[normalizers.Normalizer], settings: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(normalization)
    # ByteLevel alone joins consecutive punctuation marks, so that a token such as ".," would overlap two words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PUNCTUATION, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(initial_alphabet=alphabet, **settings))
    return tokenizer


def _build_wordpiece(corpus: Sequence[str], normalization: list[normalizers.Normalizer], settings: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(normalization)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(WORDS_AND_PUNCTUATION, "removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    # The trainer assigns ids to "##" characters in the random order of a hash map, and breaks ties by these ids. As special
    # tokens they have fixed ids. The vocabulary is then moved to a model without these special tokens.
    fixed_tokens = [*map(str, settings["special_tokens"]), *_continuing_characters(tokenizer, corpus)]
    trainer = trainers.WordPieceTrainer(**{**settings, "special_tokens": fixed_tokens})
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    scratch.train_from_iterator(corpus, trainer)
    tokenizer.model = models.WordPiece(vocab=scratch.get_vocab(), unk_token="[UNK]")
    tokenizer.add_special_tokens(settings["special_tokens"])
    return tokenizer


def _continuing_characters(tokenizer: Tokenizer, corpus: Sequence[str]) -> list[str]:
    characters: set[str] = set()
    for text in corpus:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            characters.update(word[1:])
    return [f"##{character}" for character in sorted(characters)]


_BUILDERS: dict[TokenizerKind, Callable[[Sequence[str], list[normalizers.Normalizer], dict[str, Any]], Tokenizer]] = {
    "char": _build_char,
    "word": _build_word,
    "symbols": _build_symbols,
    "bpe": _build_bpe,
    "wordpiece": _build_wordpiece,
}
