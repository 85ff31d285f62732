"""Load a tokenizer by its folder or its name on the Hugging Face Hub."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_maskattn.tokenization import MaskAttnTokenizer


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
