import pytest

from hf_maskattn.inspection.text_generation import generate_texts
from tests.toy_writer import PAIR_TEXTS, toy_writer


@pytest.fixture(scope="module")
def writer():
    return toy_writer()


def generate(model_and_tokenizer, texts=PAIR_TEXTS, batch_size=2, **settings):
    return list(generate_texts(*model_and_tokenizer, texts, batch_size=batch_size, **settings))


def test_generate_texts_equals_generate_for_each_text(writer):
    model, tokenizer = writer
    results = generate(writer)
    for text, result in zip(PAIR_TEXTS, results, strict=True):
        (ids,) = model.generate(**tokenizer([text], return_tensors="pt")).tolist()
        assert result.texts == [tokenizer.decode(ids, skip_special_tokens=True)]
        assert result.alignment is None
    assert len({result.texts[0] for result in results}) == len(PAIR_TEXTS)
    assert [result.texts for result in generate(writer, batch_size=1)] == [result.texts for result in results]
    assert [result.texts for result in generate(writer, PAIR_TEXTS[::-1], batch_size=3)] == [
        result.texts for result in results[::-1]
    ]
    assert generate(writer, []) == []


def test_generate_texts_aligns_the_best_of_several(writer, monkeypatch):
    model, _ = writer
    monkeypatch.setattr(model.generation_config, "num_beams", 3)
    best = [result.texts for result in generate(writer)]
    monkeypatch.setattr(model.generation_config, "num_return_sequences", 2)
    monkeypatch.setattr(model.generation_config, "return_dict_in_generate", True)
    results = generate(writer, with_alignment=True)
    assert [result.texts[:1] for result in results] == best
    assert all(len(set(result.texts)) == 2 for result in results)
    for text, result in zip(PAIR_TEXTS, results, strict=True):
        assert "".join(result.alignment.source) == text.replace(" ", "▁") + "[EOS]"
        assert "".join(token for token in result.alignment.target if token != "[EOS]").replace("▁", " ") == result.texts[0]


def test_generate_texts_truncates_to_max_length(writer):
    long, short = ["meow purr meow purr"], ["meow purr m"]
    (cut,) = generate(writer, long, max_length=12)
    assert (cut.texts, cut.cut_tokens) == (generate(writer, short)[0].texts, 8)
    (complete,) = generate(writer, long, with_alignment=True)
    assert complete.cut_tokens == 0
    assert len(complete.alignment.source) == len(long[0]) + 1


def test_generate_texts_stops_at_stop_strings(writer, monkeypatch):
    (free,) = generate(writer, ["woof"])
    monkeypatch.setattr(writer[0].generation_config, "stop_strings", [free.texts[0][2]])
    (stopped,) = generate(writer, ["woof"])
    assert stopped.texts[0] == free.texts[0][: free.texts[0].index(free.texts[0][2]) + 1]
