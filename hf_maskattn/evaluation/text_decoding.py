"""Token ids that a model wrote -> texts."""

from collections.abc import Collection, Iterable, Sequence

from transformers import PreTrainedTokenizerBase


def decode_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[Sequence[int]], *, dropped: Collection[int] = ()
) -> list[str]:
    """Turn rows of token ids into texts.

    Args:
        tokenizer: The tokenizer of the model.
        rows: The ids of each text. Special tokens are dropped, except the unknown token: if it vanished, a wrong text could
            look right.
        dropped: Further ids that stand for nothing.

    Returns:
        The texts.
    """
    nothing = {*dropped, *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    kept = [[int(number) for number in ids if int(number) not in nothing] for ids in rows]
    return tokenizer.batch_decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
