import torch

from hf_maskattn.inspection import explained_outputs
from hf_maskattn.inspection.explain import explain
from tests.inspection.explained_models import TEXTS, build_model, run, tag_names
from tests.tolerances import LOG_PROBABILITY, OUTPUT, assert_near
from tests.toy_writer import toy_writer


def delete(words, index):
    return " ".join([*words[:index], *words[index + 1 :]])


def test_tags_without_a_word_are_those_of_the_shorter_text(tagger):
    model, tokenizer = tagger
    words = TEXTS[2].split()
    (explanation,) = explain(model, tokenizer, [TEXTS[2]])
    tags = run(model, tokenizer, TEXTS[2]).argmax(dim=1)
    names = model.config.id2label
    assert explanation.labels == [f"{word}: {names[int(tag)]}" for word, tag in zip(words, tags, strict=True)]
    for index, scores in enumerate(explanation.scores):
        assert scores[index].isnan()
        others = [other for other in range(len(words)) if other != index]
        expected = run(model, tokenizer, delete(words, index))[range(len(others)), tags[others]]
        assert_near((explanation.logits - scores)[others], expected, OUTPUT)


def test_words_of_a_tagger_have_the_tag_of_their_first_token():
    model, tokenizer = build_model("MaskAttnForTokenClassification", kind="char", **tag_names("O", "B-A", "I-A"))
    (explanation,) = explain(model, tokenizer, ["red mat"], unit="word")
    logits = run(model, tokenizer, "red mat")
    assert_near(explanation.logits, logits[[0, 3]].max(dim=1).values, OUTPUT)  # the space is part of the word after it
    assert_near(explanation.logits[0] - explanation.scores[1, 0], run(model, tokenizer, "red")[0, logits[0].argmax()], OUTPUT)


def test_log_probability_of_generated_tokens():
    torch.manual_seed(3)
    model, tokenizer = build_model("RNNSearchForConditionalGeneration")
    text = TEXTS[0]
    (explanation,) = explain(model, tokenizer, [text])
    inputs = tokenizer([text], return_tensors="pt", return_token_type_ids=False)
    sequence = model.generate(**inputs)
    assert explanation.generated_text == tokenizer.decode(sequence[0], skip_special_tokens=True)
    assert explanation.tokens == text.split()  # the end token is not part of the text

    @torch.no_grad()
    def log_probabilities(source):
        inputs = tokenizer([source], return_tensors="pt", return_token_type_ids=False)
        logits = model(**inputs, decoder_input_ids=sequence[:, :-1]).logits[0].log_softmax(dim=-1)
        return logits.gather(1, sequence[0, 1:, None])[:, 0][: len(explanation.labels)]

    assert_near(explanation.logits, log_probabilities(text), LOG_PROBABILITY)
    for index, scores in enumerate(explanation.scores):
        expected = log_probabilities(delete(text.split(), index))
        assert_near(explanation.logits - scores, expected, LOG_PROBABILITY)
    (view,) = explanation.views()
    assert view.title == explanation.generated_text
    assert_near(view.scores, explanation.scores.sum(dim=1), OUTPUT)


def test_spans_are_removed_together(classifier):
    model, tokenizer = classifier
    (explanation,) = explain(model, tokenizer, ["the old cat sat"], spans=[[(0, 7), (8, 11)]])
    assert (explanation.method, explanation.unit, explanation.tokens) == ("removal", "span", ["the old", "cat"])
    for scores, rest in zip(explanation.scores, ["cat sat", "the old sat"], strict=True):
        assert_near(explanation.logits - scores, run(model, tokenizer, rest), OUTPUT)
    assert_near(explanation.base, run(model, tokenizer, "sat"), OUTPUT)


def test_generated_text_without_tokens_has_no_scores(monkeypatch):
    model, tokenizer = toy_writer()
    monkeypatch.setattr(explained_outputs, "target_length", lambda *_: 0)
    (explanation,) = explain(model, tokenizer, ["meow"])
    assert explanation.scores.shape == (len(explanation.tokens), 0)


def test_span_that_was_truncated_has_no_effect(classifier):
    model, tokenizer = classifier
    (explanation,) = explain(model, tokenizer, ["the old cat sat"], spans=[[(0, 7), (12, 15)]], max_length=3)
    assert explanation.tokens == ["the old", "sat"]
    assert_near(explanation.logits - explanation.scores[0], run(model, tokenizer, "cat"), OUTPUT)
    assert_near(explanation.scores[1], 0 * explanation.logits, OUTPUT)


def test_characters_are_deleted_from_their_text():
    model, tokenizer = build_model(kind="char", num_labels=3)
    text = "red mat"
    (explanation,) = explain(model, tokenizer, [text], "removal")
    for index, scores in enumerate(explanation.scores):
        expected = run(model, tokenizer, text[:index] + text[index + 1 :])
        assert_near(explanation.logits - scores, expected, OUTPUT)


def test_batches_of_masks_do_not_change_scores(classifier, monkeypatch):
    (expected,) = explain(*classifier, TEXTS[2:3], "removal")
    monkeypatch.setattr("hf_maskattn.inspection.explained_outputs._TOKENS_PER_BATCH", 25)
    (explanation,) = explain(*classifier, TEXTS[2:3], "removal")
    assert_near(explanation.scores, expected.scores, OUTPUT)
