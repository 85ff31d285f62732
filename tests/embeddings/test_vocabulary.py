import json
import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hf_maskattn.data.tokenizers import load_tokenizer, train_tokenizer
from hf_maskattn.embeddings.vocabulary import prune_vocabulary
from tests.embeddings.toy_source import PIECES, build_tokenizer

CORPUS = [
    "the weather was unbelievably good, and the actors were better than the film",
    "a better film than I believed: believable actors, good weather",
    "she sells sea shells by the sea shore; the shells she sells are surely sea shells",
    "no one knows the weather of the shore, though everyone believes in better days",
] * 3
TEXTS = [CORPUS[0], "she believes in good actors", ""]
OTHER = "sells a xylophone, zß 𝄞"


def train_unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def train_clip_like():
    """Train BPE with a suffix at the end of words and a post-processor of RoBERTa."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special_tokens = ["<pad>", "<s>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special_tokens, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.Sequence([processors.RobertaProcessing(("</s>", 2), ("<s>", 1))])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def train(kind):
    if kind in ("unigram", "clip"):
        return {"unigram": train_unigram, "clip": train_clip_like}[kind]()
    return train_tokenizer(CORPUS, kind=kind, vocab_size={"bpe": 400}.get(kind, 90), max_length=50)


def tokens_of(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("kind", ["word", "wordpiece", "bpe", "unigram", "clip"])
def test_texts_have_the_same_tokens(kind, tmp_path):
    tokenizer = train(kind)
    pruned = prune_vocabulary(tokenizer, TEXTS)
    assert len(pruned) < len(tokenizer)
    assert [tokens_of(pruned, text) for text in TEXTS] == [tokens_of(tokenizer, text) for text in TEXTS]
    assert tokens_of(pruned, OTHER) != []
    assert sorted(pruned.get_vocab().values()) == list(range(len(pruned)))
    ids = tokenizer.get_vocab()
    assert sorted(pruned.get_vocab(), key=pruned.get_vocab().get) == sorted(pruned.get_vocab(), key=ids.get)
    pruned.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert [loaded(text).input_ids for text in [*TEXTS, OTHER]] == [pruned(text).input_ids for text in [*TEXTS, OTHER]]
    assert loaded.special_tokens_map == tokenizer.special_tokens_map


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "clip"])
def test_single_characters_are_kept(kind):
    tokenizer = train(kind)
    pruned = prune_vocabulary(tokenizer, TEXTS).get_vocab()
    single = {token for token in tokenizer.get_vocab() if len(token.removeprefix("##").removesuffix("</w>")) == 1}
    assert single <= pruned.keys()
    assert len(single) > 20


@pytest.mark.parametrize("seed", range(3))
def test_pruned_bpe_agrees_on_random_texts(seed):
    rng = random.Random(seed)
    texts = ["".join(rng.choices("abcd ", k=30)) for _ in range(40)]
    tokenizer = train_tokenizer(texts, kind="bpe", vocab_size=400, max_length=50)
    pruned = prune_vocabulary(tokenizer, texts[:10])  # raises if it does not
    assert len(pruned) < len(tokenizer)


def test_special_and_added_tokens_are_kept():
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken("[unused]"), AddedToken("new")])
    pruned = prune_vocabulary(tokenizer, ["paws"])
    kept = sorted(pruned.get_vocab(), key=pruned.get_vocab().get)
    assert kept == [*PIECES[:6], "paw", "##w", "##s", "s", "w", "new"]
    assert pruned("new paws [MASK]").tokens() == ["[CLS]", "new", "paw", "##s", "[MASK]", "[SEP]"]
    assert (pruned.pad_token_id, pruned.cls_token_id, pruned.mask_token_id) == (0, 3, 5)
    assert pruned.model_max_length == 32


def test_unknown_character_keeps_its_score():
    pruned, full = (
        json.loads(t.backend_tokenizer.to_str()) for t in (prune_vocabulary(train_unigram(), TEXTS), train_unigram())
    )
    lowest = [min(score for _, score in state["model"]["vocab"]) for state in (pruned, full)]
    assert lowest[0] == lowest[1]
    assert pruned["model"]["vocab"][pruned["model"]["unk_id"]][0] == "<unk>"


def test_byte_fallback_keeps_the_bytes():
    tokens = ["<pad>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b", "ab"]
    model = models.BPE({token: index for index, token in enumerate(tokens)}, [("a", "b")], byte_fallback=True)
    pruned = prune_vocabulary(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), pad_token="<pad>"), ["a"])
    assert set(tokens) - pruned.get_vocab().keys() == {"ab"}
    assert pruned.tokenize("é") == ["<0xC3>", "<0xA9>"]


MODELS = {
    "WordLevel": lambda: models.WordLevel({"[PAD]": 0, "a": 1}, unk_token="[UNK]"),
    "WordPiece": lambda: models.WordPiece({"[PAD]": 0, "a": 1}, unk_token="[UNK]"),
    "Unigram": lambda: models.Unigram([("[PAD]", 0.0), ("a", -1.0)]),
    "BPE": lambda: models.BPE({"[PAD]": 0, "a": 1}, []),
}


@pytest.mark.parametrize("kind", MODELS)
def test_missing_unknown_token_is_an_error(kind):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(MODELS[kind]()), pad_token="[PAD]")
    with pytest.raises(ValueError, match=r"must have an unknown token to be pruned, got none. Keep all tokens"):
        prune_vocabulary(tokenizer, ["a"])


def test_text_that_would_be_split_differently_is_an_error():
    # "pab" is unknown: after "pa" there is no "##b". Without "pa", "p" and "##ab" would be found.
    tokenizer = build_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pa", "p", "##ab", "c"])
    assert tokenizer.tokenize("pab") == ["[UNK]"]
    with pytest.raises(ValueError, match=r"must split 'pab' as before .* data.vocabulary=all"):
        prune_vocabulary(tokenizer, ["pab", "cab"])
