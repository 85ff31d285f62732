import json
import random

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from hf_maskattn import MaskAttnConfig, MaskAttnForSequenceClassification, MaskAttnForTokenClassification, MaskAttnModel
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.inference.predict import check_output_path, predict
from hf_maskattn.onnx.export import write_onnx
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
    """Train a model for each task and problem type, once."""
    folders = {}

    def get(task, problem_type=None, make=None):
        if (task, problem_type) not in folders:
            folder = tmp_path_factory.mktemp("trained")
            model = {"problem_type": problem_type} if problem_type else {}
            training = {"num_train_epochs": 8, "learning_rate": 0.03, "eval_strategy": "no", "save_strategy": "no"}
            train(load_recipe(write_recipe(folder, task, model=model, training=training, make=make)))
            folders[task, problem_type] = folder / "run"
        return folders[task, problem_type]

    return get


def test_predict_labels_in_order(trained):
    results = list(predict(trained("text-classification"), ["woof woof", "meow purr", "bark"], batch_size=2))
    assert [result["text"] for result in results] == ["woof woof", "meow purr", "bark"]
    assert [result["predictions"][0]["label"] for result in results] == ["dog", "cat", "dog"]
    assert all(0 < result["predictions"][0]["score"] <= 1 for result in results)
    json.dumps(results)


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_predict_empty_texts_have_no_predictions(trained, task):
    word = "meow [MASK]" if task == "fill-mask" else "meow"
    results = list(predict(trained(task), ["", word, " \t", word], batch_size=3))
    assert [bool(result["predictions"]) for result in results][::2] == [False, False]
    assert list(predict(trained(task), [""])) == [{"text": "", "predictions": []}]
    json.dumps(results)


def test_predict_is_independent_of_batch_size(trained):
    texts = ["woof", "meow purr paw tail paw meow", "bark tail"]
    one, three = (list(predict(trained("text-classification"), texts, batch_size=size)) for size in (1, 3))
    for left, right in zip(one, three, strict=True):
        assert left["predictions"][0]["score"] == pytest.approx(right["predictions"][0]["score"], abs=MANY_STEPS)


def test_predict_top_k(trained):
    (result,) = predict(trained("text-classification"), ["woof"], top_k="all")
    assert [item["label"] for item in result["predictions"]] == ["dog", "cat"]
    assert sum(item["score"] for item in result["predictions"]) == pytest.approx(1)
    (best,) = predict(trained("text-classification"), ["woof"], top_k=1)
    assert best["predictions"] == result["predictions"][:1]
    (result,) = predict(trained("fill-mask"), ["meow [MASK]"], top_k=3)
    assert len(result["predictions"]) == 3


def test_predict_rows_keep_their_columns(trained):
    rows = [{"id": 7, "review": "woof"}, {"review": ["meow", " ", "purr"]}]
    first, second = predict(trained("text-classification"), iter(rows), column="review")
    assert {**first, "predictions": []} == {**rows[0], "predictions": []}
    (expected,) = predict(trained("text-classification"), ["meow purr"])
    assert second == {**rows[1], "predictions": expected["predictions"]}


def test_predict_flags_texts_of_unknown_tokens(trained, writer, caplog):
    texts = ["woof", "ключ слово", "", "ключ woof"]
    results = list(predict(trained("text-classification"), texts))
    assert [result.get("warning", "")[:25] for result in results] == ["", "All tokens of this text a", "", ""]
    assert results[1]["predictions"]
    assert caplog.messages[-1].startswith("1 of 4 texts have only tokens that the tokenizer of the model does not know.")
    assert ["warning" in result for result in predict(writer, ["meow", "ЖЖ"])] == [False, True]


def test_predict_mask_errors_do_not_affect_other_texts(trained):
    good = ["meow [MASK]", "[MASK]", "woof [MASK] bark"]
    bad = {
        "meow": "must have one [MASK], got none",
        "meow [MASK] [MASK]": "must have one [MASK], got 2",
        "paw " * 5 + "[MASK]": "The [MASK] of this text is beyond max_length=4 tokens. Raise or omit max_length.",
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


def test_predict_model_errors_do_not_affect_other_texts(trained, monkeypatch):
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


def test_predict_multi_label_scores_every_label(trained):
    folder = trained(
        "text-classification", "multi_label_classification", make=lambda row: {**row, "label": [row["label"], "animal"]}
    )
    (result,) = predict(folder, ["meow"])
    assert {prediction["label"] for prediction in result["predictions"]} == {"animal", "cat", "dog"}


def test_predict_regression_returns_numbers(trained):
    folder = trained("text-classification", "regression", make=lambda row: {**row, "label": 30.0})
    (result,) = predict(folder, ["meow"])
    assert result["predictions"][0]["score"] > 1
    with pytest.raises(ValueError, match="top_k needs a model that classifies texts or fills masks, got 1 for regression"):
        predict(folder, ["meow"], top_k=1)


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_predict_truncates_only_to_max_length(trained, task, caplog):
    limit, mask = (3, " [MASK]") if task == "fill-mask" else (2, "")
    long = f"paw{mask} " + "meow " * 600 + "meow"
    (full,) = predict(trained(task), [long])
    assert not caplog.messages
    if task == "token-classification":
        assert full["predictions"][-1]["end"] == len(long)
    texts = ["paw" + mask, long, "", f"tail{mask} tail tail"]
    results = list(predict(trained(task), texts, max_length=limit, batch_size=2))
    assert [("error" in result) for result in results] == [False] * 4
    assert caplog.messages == [f"2 of 4 texts were longer than max_length={limit} tokens. 601 tokens were cut."]


def test_predict_reads_long_texts_completely(trained):
    folder = trained("text-classification")
    texts = ["woof " * 700 + end * 300 for end in ("bark ", "meow ")]
    full = [result["predictions"][0]["score"] for result in predict(folder, texts)]
    cut = [result["predictions"][0]["score"] for result in predict(folder, texts, max_length=512)]
    assert full[0] != full[1]
    assert cut[0] == cut[1]


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_predict_equals_pipeline(trained, task, monkeypatch):
    monkeypatch.setattr("hf_maskattn.inference.predict.BATCHES_PER_WINDOW", 2)
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["meow", "woof", "paw", "unknown", "."], k=rng.randint(1, 9))) for _ in range(50)]
    texts = [f"{text} [MASK]" if task == "fill-mask" else text for text in texts]
    pipe = pipeline(task, model=str(trained(task)))
    settings = {"aggregation_strategy": "simple"} if task == "token-classification" else {}
    for text, result in zip(texts, predict(trained(task), iter(texts), batch_size=4), strict=True):
        assert_same(result, {"text": text, "predictions": pipe(text, **settings)})


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A saved encoder-decoder."""
    folder = tmp_path_factory.mktemp("writer")
    for part in toy_writer():
        part.save_pretrained(folder)
    return folder


def test_predict_generates_texts_in_order(writer):
    model, tokenizer = toy_writer()
    texts = [PAIR_TEXTS[0], " ", *PAIR_TEXTS[1:]]
    results = list(predict(writer, texts, batch_size=2))
    assert [result["text"] for result in results] == texts
    assert results.pop(1)["predictions"] == []
    for result in results:
        (ids,) = model.generate(**tokenizer([result["text"]], return_tensors="pt")).tolist()
        assert result["predictions"] == [{"generated_text": tokenizer.decode(ids, skip_special_tokens=True)}]
    json.dumps(results)


def test_predict_generates_several_texts_with_scores(writer):
    model, tokenizer = toy_writer()
    for result in predict(writer, PAIR_TEXTS, num_beams=3, num_return_sequences=2, batch_size=2):
        outputs = model.generate(
            **tokenizer([result["text"]], return_tensors="pt"),
            num_beams=3,
            num_return_sequences=2,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = tokenizer.batch_decode(outputs.sequences, skip_special_tokens=True)
        assert [item["generated_text"] for item in result["predictions"]] == texts
        scores = [item["score"] for item in result["predictions"]]
        assert scores == pytest.approx(outputs.sequences_scores.tolist(), abs=MANY_STEPS)
        assert scores[0] >= scores[1]


def test_predict_rejects_options_of_other_tasks(writer, trained):
    classifier, masked = trained("text-classification"), trained("fill-mask")
    with pytest.raises(ValueError, match=r"num_beams must be None for text-classification, because .* generates no text"):
        predict(classifier, ["a"], num_beams=2)
    with pytest.raises(ValueError, match="num_return_sequences must be at most the number of beams, 1, got 2"):
        predict(writer, ["a"], num_return_sequences=2)
    with pytest.raises(ValueError, match="top_k needs a model that classifies texts or fills masks, got 2 for seq2seq"):
        predict(writer, ["a"], top_k=2)
    with pytest.raises(ValueError, match="top_k must be a number for fill-mask, got 'all'"):
        predict(masked, ["a [MASK]"], top_k="all")
    with pytest.raises(TypeError, match=r"texts must be an iterable of texts, got a single string \('cat'\)"):
        predict(classifier, "cat")
    with pytest.raises(TypeError, match=r"row 1 \(counted from 0\): a text must be a string or a list of strings, got 3"):
        predict(classifier, ["a", 3])


def test_predict_draws_alignments_at_the_end(writer, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "hf_maskattn.inspection.attention_maps.draw_alignments",
        lambda maps, path: (drawn.extend(maps), path.write_bytes(b"picture")),
    )
    texts = [PAIR_TEXTS[0], "", *PAIR_TEXTS[1:]]
    results = list(predict(writer, texts, batch_size=2, alignment_file=str(tmp_path / "maps.png")))
    assert results == list(predict(writer, texts))
    assert ["".join(found.source[:-1]).replace("▁", " ") for found in drawn] == PAIR_TEXTS
    assert [path.name for path in tmp_path.iterdir()] == ["maps.png"]
    with pytest.raises(ValueError, match=r"exists\. Replace it with --overwrite"):
        predict(writer, texts, alignment_file=tmp_path / "maps.png")
    list(predict(writer, texts, alignment_file=tmp_path / "maps.png", overwrite=True))
    assert len(drawn) == 2 * len(PAIR_TEXTS)


def test_predict_keeps_old_picture_on_failure(writer, tmp_path):
    picture = tmp_path / "maps.png"
    picture.write_text("old")
    with pytest.raises(ValueError, match="There must be at least one alignment to draw, got none"):
        list(predict(writer, [" "], alignment_file=picture, overwrite=True))
    assert picture.read_text() == "old"
    assert list(tmp_path.iterdir()) == [picture]
    with pytest.raises(ValueError, match=r"The suffix of a plot must be one of .* got .*maps.docx"):
        predict(writer, ["a"], alignment_file=tmp_path / "maps.docx")


def test_predict_rejects_unsupported_outputs_at_the_call(writer, trained, tmp_path):
    with pytest.raises(ValueError, match="token-classification or joint-classification, got text2text-generation"):
        predict(writer, ["a"], onnx_file=tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"An alignment needs a model for text2text-generation, got .* for fill-mask"):
        predict(trained("fill-mask"), ["a [MASK]"], alignment_file=tmp_path / "maps.png")
    with pytest.raises(FileNotFoundError, match=r"model\.onnx does not exist"):
        predict(trained("text-classification"), ["a"], onnx_file=tmp_path / "model.onnx")


def test_predict_rejects_models_at_the_call(tmp_path, tiny_config):
    MaskAttnModel(tiny_config()).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"must be a model for one of the tasks text-classification, .* got MaskAttnModel"):
        predict(tmp_path / "base", ["x"])
    with pytest.raises(FileNotFoundError, match="nowhere' is not a folder"):
        predict(tmp_path / "nowhere", ["x"])


def test_predict_rejects_sizes_below_one_at_the_call(tmp_path):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        predict(tmp_path, ["x"], batch_size=0)
    with pytest.raises(ValueError, match="max_length must be at least 1, got -1"):
        predict(tmp_path, ["x"], max_length=-1)


@pytest.fixture(scope="module")
def word_tagger(tmp_path_factory):
    """A saved part-of-speech tagger with random weights and a tokenizer of characters, and its ONNX file."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer = train_tokenizer(["don't go, réel हिन्दी"], kind="char", vocab_size=60, max_length=99)
    names = dict(enumerate(["NOUN", "VERB", "O"]))
    sizes = {"embedding_size": 6, "hidden_size": 8, "attention_size": 8}
    torch.manual_seed(0)
    model = MaskAttnForTokenClassification(MaskAttnConfig(vocab_size=60, id2label=names, tag_scheme="none", **sizes)).eval()
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    write_onnx(model, folder / "model.onnx")
    return folder


def test_predict_tags_of_words(word_tagger):
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


def test_predict_words_that_are_cut_have_indices(word_tagger, trained):
    (result,) = predict(word_tagger, [["don't", " ", "go,", "réel"]])
    assert [(item["word"], item["words"]) for item in result["predictions"]] == [("don't", [0]), ("go,", [2]), ("réel", [3])]
    (spans,) = predict(trained("token-classification"), [{"tokens": ["meow", "woof"]}], column="tokens")
    assert spans["predictions"]
    for item in spans["predictions"]:
        assert item["words"] == [
            index for index, start in enumerate([0, 5]) if item["start"] < start + 4 and item["end"] > start
        ]


def test_predict_tags_of_words_from_onnx_file(word_tagger):
    texts = ["don't go", "", "réel, go"]
    by_model, by_file = (
        [[(word["entity"], word["start"], word["end"]) for word in result["predictions"]] for result in results]
        for results in (predict(word_tagger, texts), predict(word_tagger, texts, onnx_file=word_tagger / "model.onnx"))
    )
    assert by_file == by_model
    assert [len(words) for words in by_file] == [4, 0, 3]


def relabel(word_tagger, folder, labels, tag_scheme):
    """Save the tagger with other labels and another scheme."""
    config = MaskAttnConfig.from_pretrained(word_tagger)
    config.id2label, config.tag_scheme = dict(enumerate(labels)), tag_scheme
    for part in (MaskAttnForTokenClassification(config), AutoTokenizer.from_pretrained(word_tagger)):
        part.save_pretrained(folder)


def test_predict_tags_with_prefix_without_scheme(word_tagger, tmp_path):
    relabel(word_tagger, tmp_path, ["B-X", "I-X", "O"], "none")
    (result,) = predict(tmp_path, ["don't go"])
    assert [word["word"] for word in result["predictions"]] == ["don", "'", "t", "go"]
    assert all(word["entity"] in ("B-X", "I-X", "O") for word in result["predictions"])


def test_predict_spans_of_model_without_scheme(word_tagger, tmp_path):
    relabel(word_tagger, tmp_path, ["E-X", "S-X", "O"], None)
    read = pipeline("token-classification", model=str(tmp_path), aggregation_strategy="simple")
    (result,) = predict(tmp_path, ["don't go"])
    assert [(item["entity_group"], item["start"], item["end"]) for item in result["predictions"]] == [
        (item["entity_group"], item["start"], item["end"]) for item in read("don't go")
    ]


def test_check_output_path(tmp_path):
    check_output_path(tmp_path / "new", overwrite=False)
    (tmp_path / "old").write_text("")
    check_output_path(tmp_path / "old", overwrite=True)
    with pytest.raises(ValueError, match=r"old exists\. Replace it with --overwrite, or choose another file"):
        check_output_path(tmp_path / "old", overwrite=False)
    with pytest.raises(ValueError, match="must be a file, got the folder"):
        check_output_path(tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist\. Create it, or choose another for file"):
        check_output_path(tmp_path / "nowhere" / "file", overwrite=True)
