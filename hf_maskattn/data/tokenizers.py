"""Train a small tokenizer on your own texts, saved in the form that Hugging Face Transformers loads."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_maskattn.data.tokenizer_kinds import KINDS, TokenizerKind, train_kind
from hf_maskattn.tokenization import MaskAttnTokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[MASK]")
"""The special tokens of a tokenizer for models that read; their places are their ids."""

GENERATION_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
"""The special tokens of a tokenizer for models that write; their places are their ids."""

_ROLES = {"[PAD]": "pad_token", "[UNK]": "unk_token", "[MASK]": "mask_token", "[BOS]": "bos_token", "[EOS]": "eos_token"}


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: TokenizerKind,
    vocab_size: int,
    lowercase: bool = False,
    max_length: int,
    for_generation: bool = False,
) -> MaskAttnTokenizer:
    """Train a tokenizer; the same texts give the same tokenizer.

    Every kind brings text into Unicode NFC first. `char`: a token per character, a space is the token "▁";
    decoding gives the text back. `word`: words and punctuation marks; rare ones become `[UNK]`. `symbols`: what stands
    apart by white space in the corpus, such as phonemes and letters; a word that is no symbol falls into its
    characters, so that "read" and "r e a d" are the same. `bpe`: pieces of UTF-8 bytes, never `[UNK]`; decoding gives
    the text back. `wordpiece`: pieces of words, "##" where one goes on. Apart from `char` and `symbols`, a punctuation
    mark is a token of its own.

    One tokenizer serves both sides of a text-to-text model: give it the sources and the targets.

    Args:
        texts: The corpus. All of it is held in memory.
        kind: How a text is cut.
        vocab_size: Largest number of tokens, the special ones included.
        lowercase: Whether upper and lower case are the same.
        max_length: Number of tokens from which on a text is cut, where truncation is asked for.
        for_generation: Whether it is for a model that writes texts, which needs to know where one begins and ends.

    Returns:
        A fast tokenizer with `[PAD]` = 0, `[UNK]` = 1, `[MASK]` = 2 and nothing added before or after a text; or, for
        generation, with `[PAD]` = 0, `[UNK]` = 1, `[BOS]` = 2, `[EOS]` = 3 and `[EOS]` added after each text, also
        where it is cut. Saved with `save_pretrained`, it loads with `AutoTokenizer` and without this package.

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
    names = GENERATION_SPECIAL_TOKENS if for_generation else SPECIAL_TOKENS
    if vocab_size <= len(names):
        raise ValueError(
            f"vocab_size={vocab_size} is too small: {', '.join(names)} and at least one token more need {len(names) + 1}"
        )
    corpus = _check_texts(texts)
    special_tokens = [_special_token(name, kind) for name in names]
    tokenizer = train_kind(corpus, special_tokens, kind=kind, vocab_size=vocab_size, lowercase=lowercase)
    if tokenizer.get_vocab_size() > vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is too small for kind={kind!r}: the {len(names)} special tokens and "
            f"the alphabet of these texts alone need {tokenizer.get_vocab_size()}"
        )
    if for_generation:
        _end_every_text(tokenizer)
    return MaskAttnTokenizer(
        tokenizer_object=tokenizer,
        **{_ROLES[name]: token for name, token in zip(names, special_tokens, strict=True)},
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


def _special_token(name: str, kind: TokenizerKind) -> AddedToken:
    # A byte-level piece brings its space along, so a mask that stands for it does too (as in RoBERTa).
    return AddedToken(name, special=True, normalized=False, lstrip=kind == "bpe" and name == "[MASK]")


def _end_every_text(tokenizer: Tokenizer) -> None:
    end = processors.TemplateProcessing(
        single="$A [EOS]", pair="$A [EOS] $B [EOS]", special_tokens=[("[EOS]", tokenizer.token_to_id("[EOS]"))]
    )
    own = tokenizer.post_processor
    tokenizer.post_processor = end if own is None else processors.Sequence([own, end])


def load_tokenizer(name_or_folder: str | Path, *, max_length: int | None = None) -> PreTrainedTokenizerFast:
    """Load any tokenizer that this package can train on: a fast one that can pad.

    Args:
        name_or_folder: Folder that `save_pretrained` wrote, or a name on the Hub.
        max_length: Replaces the number of tokens from which on the tokenizer cuts; `None` keeps its own.

    Returns:
        The tokenizer; a saved copy is the same one again. One of no class of its own is a `MaskAttnTokenizer`.

    Raises:
        FileNotFoundError: There is no such folder or name, or the Hub cannot be reached.
        ValueError: It is not fast (offsets are needed), or has no pad token, or its files are broken.
    """
    settings = {} if max_length is None else {"model_max_length": max_length}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=False, **settings)
        if type(tokenizer) is PreTrainedTokenizerFast:  # as earlier versions of this package saved them
            tokenizer = MaskAttnTokenizer.from_pretrained(name_or_folder, trust_remote_code=False, **settings)
        if type(tokenizer) is MaskAttnTokenizer and (own_code := (tokenizer.init_kwargs.get("auto_map") or {})):
            raise ValueError(f"it has code of its own ({own_code}), which is not run without trust_remote_code")
    except OSError as error:
        raise FileNotFoundError(
            f"the tokenizer {str(name_or_folder)!r} is neither a folder here nor could it be loaded from the Hub: "
            f"{str(error).rstrip('.')}. Check the name and the network, or train one with train_tokenizer"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{str(name_or_folder)!r} could not be read as a tokenizer: {str(error).rstrip('.')}. A folder must hold "
            "tokenizer.json as save_pretrained writes it"
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer {str(name_or_folder)!r} ({type(tokenizer).__name__}) is not fast, but character offsets "
            "are needed; choose one that has a tokenizer.json, or train one with train_tokenizer"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"the tokenizer {str(name_or_folder)!r} has no pad token; load it with AutoTokenizer, call "
            'add_special_tokens({"pad_token": "[PAD]"}), save it with save_pretrained, and give that folder'
        )
    return tokenizer
