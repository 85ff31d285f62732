import pytest

from hf_maskattn.inspection.text_generation import write_texts
from tests.toy_writer import PAIR_TEXTS, toy_writer


@pytest.fixture(scope="module")
def writer():
    return toy_writer()


def written(writer, texts=PAIR_TEXTS, batch_size=2, **settings):
    return list(write_texts(*writer, texts, batch_size=batch_size, **settings))


def test_what_is_written_is_what_generate_says_of_each_text_alone(writer):
    model, tokenizer = writer
    found = written(writer)
    for text, one in zip(PAIR_TEXTS, found, strict=True):
        (ids,) = model.generate(**tokenizer([text], return_tensors="pt")).tolist()
        assert one.texts == [tokenizer.decode(ids, skip_special_tokens=True)]
        assert one.alignment is None
    assert len({one.texts[0] for one in found}) == len(PAIR_TEXTS)
    assert [one.texts for one in written(writer, batch_size=1)] == [one.texts for one in found]
    assert [one.texts for one in written(writer, PAIR_TEXTS[::-1], batch_size=3)] == [one.texts for one in found[::-1]]
    assert written(writer, []) == []


def test_several_outputs_come_best_first_and_the_best_is_aligned(writer, monkeypatch):
    model, _ = writer
    monkeypatch.setattr(model.generation_config, "num_beams", 3)
    best = [one.texts for one in written(writer)]
    monkeypatch.setattr(model.generation_config, "num_return_sequences", 2)
    monkeypatch.setattr(model.generation_config, "return_dict_in_generate", True)
    found = written(writer, with_alignment=True)
    assert [one.texts[:1] for one in found] == best
    assert all(len(set(one.texts)) == 2 for one in found)
    for text, one in zip(PAIR_TEXTS, found, strict=True):
        assert "".join(one.alignment.source) == text.replace(" ", "▁") + "[EOS]"
        assert "".join(token for token in one.alignment.target if token != "[EOS]").replace("▁", " ") == one.texts[0]


def test_long_texts_are_cut_where_a_limit_is_given(writer):
    long, short = ["meow purr meow purr"], ["meow purr m"]
    (cut,) = written(writer, long, max_length=12)
    assert (cut.texts, cut.cut_tokens) == (written(writer, short)[0].texts, 8)
    (whole,) = written(writer, long, with_alignment=True)
    assert whole.cut_tokens == 0
    assert len(whole.alignment.source) == len(long[0]) + 1


def test_a_string_may_stop_it(writer, monkeypatch):
    (free,) = written(writer, ["woof"])
    monkeypatch.setattr(writer[0].generation_config, "stop_strings", [free.texts[0][2]])
    (stopped,) = written(writer, ["woof"])
    assert stopped.texts[0] == free.texts[0][: free.texts[0].index(free.texts[0][2]) + 1]
