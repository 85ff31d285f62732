import json
import random

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from hf_maskattn import (
    MaskAttnConfig,
    MaskAttnForSequenceClassification,
    MaskAttnForTokenClassification,
    MaskAttnModel,
)
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.inference.predict import _batches, predict, require_place
from hf_maskattn.onnx.export import export_onnx
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from tests.tolerances import MANY_STEPS
from tests.toy_writer import PAIR_TEXTS, toy_writer
from tests.training.toy_recipe import write_recipe


def assert_same(result, expected):
    assert result["text"] == expected["text"]
    for one, other in zip(result["predictions"], expected["predictions"], strict=True):
        assert list(one) == list(other)
        assert {**one, "score": 0} == {**other, "score": 0}
        assert one["score"] == pytest.approx(other["score"], abs=MANY_STEPS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a model once for each task and problem type."""
    folders = {}

    def get(task, problem_type=None, make=None):
        if (task, problem_type) not in folders:
            folder = tmp_path_factory.mktemp("trained")
            model = {"problem_type": problem_type} if problem_type else {}
            training = {"num_train_epochs": 8, "learning_rate": 0.03}
            train(load_recipe(write_recipe(folder, task, model=model, training=training, make=make)))
            folders[task, problem_type] = folder / "run"
        return folders[task, problem_type]

    return get


def test_texts_get_their_label_in_order(trained):
    results = list(predict(trained("text-classification"), ["woof woof", "meow purr", "bark"], batch_size=2))
    assert [result["text"] for result in results] == ["woof woof", "meow purr", "bark"]
    assert [result["predictions"][0]["label"] for result in results] == ["dog", "cat", "dog"]
    assert all(0 < result["predictions"][0]["score"] <= 1 for result in results)
    json.dumps(results)


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_texts_without_a_visible_character_have_no_predictions_and_keep_their_place(trained, task):
    word = "meow [MASK]" if task == "fill-mask" else "meow"
    results = list(predict(trained(task), ["", word, " \t", word], batch_size=3))
    assert [bool(result["predictions"]) for result in results][::2] == [False, False]
    assert list(predict(trained(task), [""])) == [{"text": "", "predictions": []}]
    json.dumps(results)


def test_batching_changes_nothing(trained):
    texts = ["woof", "meow purr paw tail paw meow", "bark tail"]
    one, three = (list(predict(trained("text-classification"), texts, batch_size=size)) for size in (1, 3))
    for left, right in zip(one, three, strict=True):
        assert left["predictions"][0]["score"] == pytest.approx(right["predictions"][0]["score"], abs=MANY_STEPS)


def test_spans_are_found_in_the_text(trained):
    (result,) = predict(trained("token-classification"), ["paw meow"])
    assert [(span["entity_group"], span["word"], span["start"], span["end"]) for span in result["predictions"]] == [
        ("SOUND", "meow", 4, 8)
    ]


def test_masks_are_filled(trained):
    (result,) = predict(trained("fill-mask"), ["meow [MASK]"])
    assert {"token_str", "score", "sequence"} <= set(result["predictions"][0])


def test_a_text_that_cannot_be_filled_costs_no_other_one_its_answer(trained):
    good = ["meow [MASK]", "[MASK]", "woof [MASK] bark"]
    bad = {
        "meow": "must have one [MASK], got none",
        "meow [MASK] [MASK]": "must have one [MASK], got 2",
        "paw " * 5 + "[MASK]": "The [MASK] of this text lies behind max_length=4 tokens. Raise or omit max_length.",
        "\ud83d": "TypeError: ",
    }
    expected = list(predict(trained("fill-mask"), good))
    texts = [good[0], *list(bad)[:2], good[1], "", *list(bad)[2:], good[2]]
    for size in (1, 3, 32):
        results = {result["text"]: result for result in predict(trained("fill-mask"), texts, batch_size=size, max_length=4)}
        assert list(results) == texts
        for text, words in bad.items():
            assert list(results[text]) == ["text", "error"]
            assert words in results[text]["error"]
        for one in expected:
            assert_same(results[one["text"]], one)


def test_a_failure_of_the_model_is_that_of_one_text(trained, monkeypatch):
    folder = trained("text-classification")
    forward = MaskAttnForSequenceClassification.forward

    def out_of_memory(self, input_ids=None, **inputs):
        if input_ids.shape[1] > 4:
            raise RuntimeError("out of\nmemory")
        return forward(self, input_ids=input_ids, **inputs)

    monkeypatch.setattr(MaskAttnForSequenceClassification, "forward", out_of_memory)
    texts = ["woof", "meow " * 5, "bark bark", "meow"]
    results = list(predict(folder, texts))
    assert results.pop(1) == {"text": texts[1], "error": "RuntimeError: out of memory."}
    assert [result["predictions"][0]["label"] for result in results] == ["dog", "dog", "cat"]


def test_several_labels_are_all_scored(trained):
    folder = trained(
        "text-classification", "multi_label_classification", make=lambda row: {**row, "label": [row["label"], "animal"]}
    )
    (result,) = predict(folder, ["meow"])
    assert {prediction["label"] for prediction in result["predictions"]} == {"animal", "cat", "dog"}


def test_numbers_are_not_squeezed_into_probabilities(trained):
    folder = trained("text-classification", "regression", make=lambda row: {**row, "label": 30.0})
    (result,) = predict(folder, ["meow"])
    assert result["predictions"][0]["score"] > 1


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_nothing_is_cut_unless_a_limit_is_given(trained, task, caplog):
    limit, mask = (3, " [MASK]") if task == "fill-mask" else (2, "")
    long = f"paw{mask} " + "meow " * 600 + "meow"
    (whole,) = predict(trained(task), [long])
    assert not caplog.messages
    if task == "token-classification":
        assert whole["predictions"][-1]["end"] == len(long)
    texts = ["paw" + mask, long, "", f"tail{mask} tail tail"]
    results = list(predict(trained(task), texts, max_length=limit, batch_size=2))
    assert [("error" in result) for result in results] == [False] * 4
    assert caplog.messages == [f"2 of 4 texts were longer than max_length={limit} tokens; 601 tokens were cut."]


def test_a_text_is_read_to_its_end(trained):
    folder = trained("text-classification")
    texts = ["woof " * 700 + end * 300 for end in ("bark ", "meow ")]
    whole = [result["predictions"][0]["score"] for result in predict(folder, texts)]
    cut = [result["predictions"][0]["score"] for result in predict(folder, texts, max_length=512)]
    assert whole[0] != whole[1]
    assert cut[0] == cut[1]


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_results_are_those_of_the_pipeline_in_order(trained, task, monkeypatch):
    monkeypatch.setattr("hf_maskattn.inference.predict._BATCHES_IN_A_WINDOW", 2)
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["meow", "woof", "paw", "unknown", "."], k=rng.randint(1, 9))) for _ in range(50)]
    texts = [f"{text} [MASK]" if task == "fill-mask" else text for text in texts]
    pipe = pipeline(task, model=str(trained(task)))
    settings = {"aggregation_strategy": "simple"} if task == "token-classification" else {}
    for text, result in zip(texts, predict(trained(task), iter(texts), batch_size=4), strict=True):
        found = pipe(text, **settings)
        assert result["text"] == text
        assert_same(result, {"text": text, "predictions": found})


def test_batches_of_long_texts_hold_fewer_of_them():
    assert list(_batches(["a" * 200_000, "b", "", "c" * 60_000, "d" * 60_000, "e"], 4)) == [[0], [3, 4], [1, 5]]
    assert list(_batches(["a" * 2**20], 4)) == [[0]]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A saved encoder-decoder."""
    folder = tmp_path_factory.mktemp("writer")
    for part in toy_writer():
        part.save_pretrained(folder)
    return folder


def test_texts_are_written_for_texts_in_order(writer):
    model, tokenizer = toy_writer()
    texts = [PAIR_TEXTS[0], " ", *PAIR_TEXTS[1:]]
    results = list(predict(writer, texts, batch_size=2))
    assert [result["text"] for result in results] == texts
    assert results.pop(1)["predictions"] == []
    for result in results:
        (ids,) = model.generate(**tokenizer([result["text"]], return_tensors="pt")).tolist()
        assert result["predictions"] == [{"generated_text": tokenizer.decode(ids, skip_special_tokens=True)}]
    json.dumps(results)


def test_alignments_are_drawn_when_all_is_predicted(writer, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "hf_maskattn.inference.predict.draw_alignments",
        lambda maps, path: (drawn.extend(maps), path.write_bytes(b"picture")),
    )
    texts = [PAIR_TEXTS[0], "", *PAIR_TEXTS[1:]]
    results = list(predict(writer, texts, batch_size=2, alignment_file=tmp_path / "maps.png"))
    assert results == list(predict(writer, texts))
    assert ["".join(found.source[:-1]).replace("▁", " ") for found in drawn] == PAIR_TEXTS
    assert [path.name for path in tmp_path.iterdir()] == ["maps.png"]
    with pytest.raises(ValueError, match="exists: replace it with --overwrite"):
        next(predict(writer, texts, alignment_file=tmp_path / "maps.png"))
    list(predict(writer, texts, alignment_file=tmp_path / "maps.png", overwrite=True))
    assert len(drawn) == 2 * len(PAIR_TEXTS)


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(writer, tmp_path):
    picture = tmp_path / "maps.png"
    picture.write_text("old")
    with pytest.raises(ValueError, match="There must be at least one alignment to draw, got none"):
        list(predict(writer, [" "], alignment_file=picture, overwrite=True))
    assert picture.read_text() == "old"
    assert list(tmp_path.iterdir()) == [picture]
    with pytest.raises(ValueError, match=r"The suffix of a plot must be one of .* got .*maps.docx"):
        next(predict(writer, ["a"], alignment_file=tmp_path / "maps.docx"))


def test_what_a_model_cannot_do_is_named(writer, trained, tmp_path):
    with pytest.raises(ValueError, match="text2text-generation does not run from an ONNX file"):
        list(predict(writer, ["a"], onnx_file=tmp_path / "model.onnx"))
    with pytest.raises(ValueError, match="is a model for fill-mask, which has no attention from an output to its source"):
        list(predict(trained("fill-mask"), ["a [MASK]"], alignment_file=tmp_path / "maps.png"))


def test_a_model_without_a_head_is_refused(tmp_path, tiny_config):
    MaskAttnModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="was saved as MaskAttnModel, which predicts nothing: train a model with one of"):
        list(predict(tmp_path, ["x"]))


def test_batch_sizes_below_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        list(predict(tmp_path, ["x"], batch_size=0))
    with pytest.raises(ValueError, match="max_length must be at least 1, got -1"):
        list(predict(tmp_path, ["x"], max_length=-1))


@pytest.fixture(scope="module")
def word_tagger(tmp_path_factory):
    """A saved model of parts of speech with random weights and a tokenizer of characters, and its ONNX file."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer = train_tokenizer(["don't go, réel हिन्दी"], kind="char", vocab_size=60, max_length=99)
    names = dict(enumerate(["NOUN", "VERB", "O"]))
    sizes = {"embedding_size": 6, "hidden_size": 8, "attention_size": 8}
    torch.manual_seed(0)
    model = MaskAttnForTokenClassification(MaskAttnConfig(vocab_size=60, id2label=names, tag_scheme="none", **sizes)).eval()
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    export_onnx(model, folder / "model.onnx")
    return folder


def test_tags_that_mark_no_spans_are_given_for_each_word(word_tagger):
    text = " Don't go,  re\u0301el हिन्दी"
    (result,) = predict(word_tagger, [text])
    words = result["predictions"]
    assert [word["word"] for word in words] == ["Don", "'", "t", "go", ",", "re\u0301el", "हिन्दी"]
    assert all(text[word["start"] : word["end"]] == word["word"] for word in words)
    assert all(set(word) == {"entity", "score", "word", "start", "end"} for word in words)
    pieces = pipeline("token-classification", model=str(word_tagger), aggregation_strategy="none")(text, ignore_labels=[])
    first = {piece["start"]: piece for piece in reversed(pieces) if piece["word"] != "▁"}
    assert [(word["entity"], word["score"]) for word in words] == [
        (first[word["start"]]["entity"], pytest.approx(first[word["start"]]["score"])) for word in words
    ]


def test_words_are_tagged_the_same_by_an_onnx_file(word_tagger):
    texts = ["don't go", "", "réel, go"]
    by_model, by_file = (
        [[(word["entity"], word["start"], word["end"]) for word in result["predictions"]] for result in results]
        for results in (predict(word_tagger, texts), predict(word_tagger, texts, onnx_file=word_tagger / "model.onnx"))
    )
    assert by_file == by_model
    assert [len(words) for words in by_file] == [4, 0, 3]


def test_tags_with_a_prefix_stand_for_themselves_where_their_scheme_is_none(word_tagger, tmp_path):
    tokenizer, config = AutoTokenizer.from_pretrained(word_tagger), MaskAttnConfig.from_pretrained(word_tagger)
    config.id2label = dict(enumerate(["B-X", "I-X", "O"]))
    for part in (MaskAttnForTokenClassification(config), tokenizer):
        part.save_pretrained(tmp_path)
    (result,) = predict(tmp_path, ["don't go"])
    assert [word["word"] for word in result["predictions"]] == ["don", "'", "t", "go"]
    assert all(word["entity"] in ("B-X", "I-X", "O") for word in result["predictions"])


def test_tags_of_an_earlier_model_are_grouped_as_before(word_tagger, tmp_path):
    tokenizer, config = AutoTokenizer.from_pretrained(word_tagger), MaskAttnConfig.from_pretrained(word_tagger)
    config.id2label, config.tag_scheme = dict(enumerate(["E-X", "S-X", "O"])), None
    for part in (MaskAttnForTokenClassification(config), tokenizer):
        part.save_pretrained(tmp_path)
    read = pipeline("token-classification", model=str(tmp_path), aggregation_strategy="simple")
    (result,) = predict(tmp_path, ["don't go"])
    assert [(item["entity_group"], item["start"], item["end"]) for item in result["predictions"]] == [
        (item["entity_group"], item["start"], item["end"]) for item in read("don't go")
    ]


def test_a_place_for_a_file(tmp_path):
    require_place(tmp_path / "new", overwrite=False)
    (tmp_path / "old").write_text("")
    require_place(tmp_path / "old", overwrite=True)
    with pytest.raises(ValueError, match=r"old exists: replace it with --overwrite, or name another file"):
        require_place(tmp_path / "old", overwrite=False)
    with pytest.raises(ValueError, match=r"is a folder, give the name of a file"):
        require_place(tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write file to: make it, or name another"):
        require_place(tmp_path / "nowhere" / "file", overwrite=True)
