from hf_maskattn.data.tokenizer_training import train_tokenizer
from hf_maskattn.evaluation.text_decoding import decode_texts


def build(kind, **changes):
    settings = {"kind": kind, "vocab_size": 300, "max_length": 9, "for_generation": True}
    return train_tokenizer(["the cat, жий 日"], **{**settings, **changes})


def test_texts_come_back_without_what_stands_around_them():
    tokenizer = build("char")
    (ids,) = tokenizer(["the cat"], return_attention_mask=False)["input_ids"]
    assert decode_texts(tokenizer, [[2, *ids, 0, 0], []]) == ["the cat", ""]
    assert decode_texts(tokenizer, [[*ids, -100]], dropped={-100}) == ["the cat"]


def test_an_unknown_token_stays():
    tokenizer = build("char")
    assert decode_texts(tokenizer, [[*tokenizer("th")["input_ids"][:2], tokenizer.unk_token_id]]) == ["th[UNK]"]
