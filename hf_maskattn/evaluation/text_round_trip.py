"""Whether a tokenizer gives texts back, which a model can only write if it does."""

from collections.abc import Iterable
from copy import deepcopy

from transformers import PreTrainedTokenizerBase

from hf_maskattn.evaluation.text_decoding import decode_texts
from hf_maskattn.evaluation.text_references import comparable_texts


def first_changed_text(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> tuple[str, str] | None:
    """Find a text that is another one once it was cut into tokens and put together again, as metrics compare texts.

    Args:
        tokenizer: The tokenizer of a model that writes texts.
        texts: Right answers.

    Returns:
        The first such text and what becomes of it; None if all texts come back. That a tokenizer cuts off what is too long
        does not count.
    """
    tokenizer = deepcopy(tokenizer)  # a call without truncation takes the cut away from it
    for text in texts:
        (back,) = decode_texts(tokenizer, [tokenizer(text_target=text, truncation=False, verbose=False)["input_ids"]])
        (found,), ((expected,),) = comparable_texts([back], [[text]])
        if found != expected:
            return text, back
    return None
