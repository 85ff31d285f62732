import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from tokenizers import normalizers
from transformers import BertConfig, BertForSequenceClassification

import hf_maskattn
from hf_maskattn.inference.predict import predict
from hf_maskattn.inspection.explain import Explainer, explain
from hf_maskattn.inspection.explanations import Explanation
from tests.inspection.explained_models import TEXTS, build_model, run, tag_names
from tests.tolerances import OUTPUT, assert_near


def test_explanations_are_in_order_and_lists_classes(classifier):
    model, tokenizer = classifier
    explanations = hf_maskattn.explain(model, tokenizer, [*TEXTS, " "], batch_size=2)
    assert [explanation.text for explanation in explanations] == [*TEXTS, " "]
    for explanation in explanations[:-1]:
        assert (explanation.method, explanation.unit, explanation.labels) == ("contributions", "token", ["x", "y", "z"])
        assert explanation.tokens == explanation.text.split()
        assert [explanation.text[start:end] for start, end in explanation.offsets] == explanation.tokens
        logits = run(model, tokenizer, explanation.text)
        assert_near(explanation.logits, logits, OUTPUT)
        assert explanation.predicted == [int(logits.argmax())]
        assert explanation.completeness_gap < 1e-5


def test_text_without_visible_character_has_no_tokens(classifier):
    for method in ("contributions", "removal", "attention"):
        (explanation,) = explain(*classifier, ["\n"], method)
        assert (explanation.tokens, explanation.labels, explanation.views()) == ([], [], [])
        assert explanation.scores.shape == (0, 0)
        assert explanation.completeness_gap == 0
        assert Explanation.from_json(explanation.to_json()).scores.shape == (0, 0)


@pytest.mark.parametrize("method", ["contributions", "removal", "attention"])
def test_text_without_a_token_has_its_logits(method, classifier, tagger):
    for model, tokenizer in (classifier, tagger):
        tokenizer = deepcopy(tokenizer)
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace("cat", "")
        (explanation,) = explain(model, tokenizer, ["cat"], method)
        assert explanation.tokens == []
        assert len(explanation.logits) == (model.config.num_labels if model is classifier[0] else 0)


def test_folder_is_loaded_with_its_tokenizer(classifier, tmp_path):
    for part in classifier:
        part.save_pretrained(tmp_path)
    (expected,) = explain(*classifier, TEXTS[:1])
    (explanation,) = explain(tmp_path, None, TEXTS[:1])
    assert torch.equal(explanation.scores, expected.scores)


def test_modes_of_modules_are_restored(classifier):
    model, tokenizer = deepcopy(classifier[0]), classifier[1]
    model.train()
    model.dropout.eval()
    for method in ("contributions", "removal", "attention"):
        explain(model, tokenizer, TEXTS, method)
    assert model.training
    assert not model.dropout.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_words_add_up_their_tokens():
    model, tokenizer = build_model(kind="char", **tag_names("x", "y"))
    text = "old cats, red"
    (by_token,) = explain(model, tokenizer, [text])
    (by_word,) = explain(model, tokenizer, [text], unit="word")
    assert by_word.tokens == ["old", "cats", ",", "red"]
    assert by_word.offsets == [(0, 3), (4, 8), (8, 9), (10, 13)]
    parts = [by_token.scores[start:end].sum(dim=0) for start, end in [(0, 3), (3, 8), (8, 9), (9, 13)]]  # with their spaces
    assert_near(by_word.scores, torch.stack(parts), OUTPUT)
    assert by_word.completeness_gap < 1e-5


def test_label_selects_a_class(classifier):
    for method in ("contributions", "removal", "attention"):
        (all_classes,) = explain(*classifier, TEXTS[:1], method)
        (one,) = explain(*classifier, TEXTS[:1], method, label="y")
        assert (one.labels, one.predicted) == (["y"], [0])
        selected = all_classes.select("y")
        assert_near(one.scores, selected.scores, OUTPUT)
        assert_near(one.logits, selected.logits, OUTPUT)
        assert_near(one.base, selected.base, OUTPUT)


def test_attention_sums_to_one(classifier, tagger):
    for model in (classifier, tagger):
        for explanation in explain(*model, TEXTS, "attention"):
            assert_near(explanation.scores.sum(dim=0), torch.ones(len(explanation.labels)), OUTPUT)


def test_unknown_tokens_are_flagged(classifier):
    known, unknown, mixed = explain(*classifier, ["cat", "zebra lion", "zebra cat"])
    assert [known.all_unknown, unknown.all_unknown, mixed.all_unknown] == [False, True, False]


def test_predicted_columns_follow_the_problem():
    for problem, labels in {"regression": 1, "multi_label_classification": 3, "single_label_classification": 3}.items():
        model, tokenizer = build_model(problem_type=problem, num_labels=labels)
        (explanation,) = explain(model, tokenizer, TEXTS[:1], "removal")
        positive = [index for index, logit in enumerate(explanation.logits.tolist()) if logit > 0]
        best = [int(explanation.logits.argmax())]
        assert explanation.predicted == (positive or best if problem.startswith("multi") else best)


def test_json_keeps_every_number(classifier, tagger):
    for model, method in ((classifier, "contributions"), (tagger, "removal")):
        (explanation,) = explain(*model, TEXTS[:1], method)
        line = explanation.to_json()
        assert "NaN" not in line
        assert "\n" not in line
        assert json.loads(line)["text"] == TEXTS[0]
        copy = Explanation.from_json(line)
        assert copy.to_json() == line
        torch.testing.assert_close(copy.scores, explanation.scores, rtol=0, atol=0, equal_nan=True)
        assert (copy.offsets, copy.predicted) == (explanation.offsets, explanation.predicted)


def test_views_show_what_is_predicted(classifier, tagger):
    (explanation,) = explain(*classifier, TEXTS[:1])
    (view,) = explanation.views()
    assert view.title == explanation.labels[explanation.predicted[0]]
    assert view.logit == pytest.approx(float(explanation.logits.max()))
    (tagged,) = explain(*tagger, TEXTS[2:3])
    entities = [label for label in tagged.labels if not label.endswith(": O")]
    assert entities
    assert [view.title for view in tagged.views()] == entities


def bert(tokenizer, **changes):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes, **changes))


def test_other_models_are_explained_by_removal(classifier):
    tokenizer = classifier[1]
    model = bert(tokenizer)
    (explanation,) = explain(model, tokenizer, TEXTS[:1])
    assert (explanation.method, explanation.tokens) == ("removal", TEXTS[0].split())
    assert explanation.scores.shape == (7, 2)
    with pytest.raises(ValueError, match=r'method="contributions" needs a model of hf_maskattn, .* got bert'):
        explain(model, tokenizer, TEXTS, "contributions")


class LeakyBert(BertForSequenceClassification):
    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        return super().forward(input_ids, inputs_embeds=inputs_embeds)


def test_models_that_read_padding_are_refused(classifier):
    tokenizer = classifier[1]
    model = bert(tokenizer)
    model.__class__ = type("LeakyForSequenceClassification", (LeakyBert,), {})
    message = r"needs a model in which padding between tokens has no effect, got LeakyFor\S+ \(audit on holes: LEAKS: logits"
    with pytest.raises(ValueError, match=message):
        explain(model, tokenizer, TEXTS)


ERRORS = {
    "a text": ({"texts": "cat"}, TypeError, "texts must be a list of strings, got a single string"),
    "surrogate": ({"texts": ["a", "b\ud83d"]}, ValueError, r"texts\[1\] must be Unicode, got the unpaired surrogate of 'b"),
    "method": ({"method": "shap"}, ValueError, "method must be one of contributions, removal, .*, got 'shap'"),
    "unit": ({"unit": "letter"}, ValueError, "unit must be one of token, word, got 'letter'"),
    "batch": ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    "class": ({"label": "w"}, ValueError, "The class must be one of x, y, z, got 'w'"),
    "tokenizer": ({"tokenizer": None}, ValueError, "`tokenizer` must be the fast tokenizer of the model, got NoneType"),
    "span method": ({"method": "attention", "spans": [[]]}, ValueError, 'spans must be used with method="removal"'),
    "span count": ({"spans": []}, ValueError, "spans must have a list for each of 1 texts, got 0"),
    "span": ({"spans": [[(3, 9)]]}, ValueError, r"visible part of its text of 3 characters, got \(3, 9\)"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_arguments_are_refused(case, classifier):
    changes, error, message = ERRORS[case]
    model, tokenizer = classifier
    with pytest.raises(error, match=message):
        explain(**{"model": model, "tokenizer": tokenizer, "texts": ["cat"], **changes})


def test_methods_that_do_not_fit_are_refused(tagger):
    with pytest.raises(ValueError, match="A class must be chosen for text-classification only, got 'O' for token-class"):
        explain(*tagger, ["cat"], label="O")
    model, tokenizer = build_model("MaskAttnForMaskedLM")
    with pytest.raises(ValueError, match=r"must be for one of the tasks text-classification, .*, got MaskAttnForMaskedLM"):
        explain(model, tokenizer, ["cat"])
    pair, pair_tokenizer = build_model("RNNSearchForConditionalGeneration")
    with pytest.raises(ValueError, match=r"method must be .removal. for text2text-generation, got 'attention'"):
        explain(pair, pair_tokenizer, ["cat"], "attention")


def test_tags_of_a_crf_are_explained_by_removal():
    model, tokenizer = build_model("MaskAttnForTokenClassification", use_crf=True, **tag_names("O", "B-A", "I-A"))
    for method in ("contributions", "integrated_gradients", "gradient_x_input"):
        with pytest.raises(ValueError, match=rf'^method="{method}" needs .*, got use_crf=true.* Use method="removal"\.$'):
            explain(model, tokenizer, ["cat"], method)
    (explanation,) = explain(model, tokenizer, ["the old cat"])
    rest = explanation.logits - explanation.scores[2]
    tags = [label.rpartition(" ")[2] for label in explanation.labels]
    expected = run(model, tokenizer, "the old").log_softmax(dim=-1)[[0, 1], [model.config.label2id[tag] for tag in tags[:2]]]
    assert_near(rest[:2], expected, 1e-5)


def test_tag_that_a_crf_forbids_without_a_token_has_no_score():
    model, tokenizer = build_model("MaskAttnForTokenClassification", use_crf=True, **tag_names("O", "B-A", "I-A"))
    with torch.no_grad():
        model.token_classifier.weight.zero_()
        model.token_classifier.bias.copy_(torch.tensor([-5.0, -5.0, 5.0]))  # B-A I-A I-A
    (explanation,) = explain(model, tokenizer, ["the old cat"])
    assert explanation.labels == ["the: B-A", "old: I-A", "cat: I-A"]
    assert explanation.scores.isnan().tolist() == [[True, True, False], [False, True, False], [False, False, True]]


def test_single_token_without_tag_is_no_prediction():
    model, tokenizer = build_model("MaskAttnForTokenClassification", **tag_names("O", "B-A", "I-A"))
    with torch.no_grad():
        model.token_classifier.bias.copy_(torch.tensor([100.0, 0.0, 0.0]))
    (explanation,) = explain(model, tokenizer, ["cat"])
    assert (explanation.labels, explanation.views()) == (["cat: O"], [])


def test_entities_are_those_of_predict(joint, tagger, tmp_path):
    types = []
    for name, parts in {"joint": joint, "tagger": tagger}.items():
        for part in parts:
            part.save_pretrained(tmp_path / name)
        for result in predict(tmp_path / name, TEXTS):
            (explanation,) = explain(*parts, [result["text"]], "removal", spans=[[(0, 3)]])
            found = result["predictions"] if name == "tagger" else result["predictions"][0]["entities"]
            types.append({item["entity_group"] for item in found})
            for one, other in zip(explanation.entities, found, strict=True):
                assert one == {**other, "score": pytest.approx(other["score"], abs=1e-6)}
    assert {"A"} in types[:4]
    assert {"A"} in types[4:]


@pytest.mark.parametrize(("name", "method"), [("tagger", "contributions"), ("joint", "contributions"), ("joint", "attention")])
def test_entities_need_no_second_pass(name, method, request):
    model, tokenizer = request.getfixturevalue(name)
    passes = []
    handle = model.maskattn.register_forward_hook(lambda *_: passes.append(1))
    explanations = explain(model, tokenizer, TEXTS, method)
    handle.remove()
    assert len(passes) == 1
    removal = explain(model, tokenizer, TEXTS, "removal")
    for explanation, other in zip(explanations, removal, strict=True):
        for item, expected in zip(explanation.entities, other.entities, strict=True):
            assert item == {**expected, "score": pytest.approx(expected["score"], abs=1e-6)}


def test_other_method_of_a_joint_model_keeps_its_entities(joint):
    explainer = Explainer(*joint)
    other = explainer.with_method("removal")
    explanations = [next(item.explain_each(TEXTS[:1])) for item in (explainer, other)]
    assert [item.method for item in explanations] == ["contributions", "removal"]
    assert explanations[0].entities == explanations[1].entities != []


def test_joint_model_is_explained_as_classifier_of_texts(joint, tmp_path):
    model, tokenizer = joint
    explanation, empty = explain(model, tokenizer, [TEXTS[0], " "])
    assert (explanation.task, explanation.method, explanation.labels) == ("text-classification", "contributions", ["x", "y"])
    assert_near(explanation.logits, model(**tokenizer(TEXTS[:1], return_tensors="pt")).sequence_logits[0].detach(), OUTPUT)
    assert [item.entities is None for item in (explanation, empty)] == [False, True]
    assert not model.training
    for part in joint:
        part.save_pretrained(tmp_path)
    (other,) = explain(tmp_path, None, TEXTS[:1], label="y")
    assert_near(other.scores[:, 0], explanation.scores[:, 1], OUTPUT)


def test_missing_model_is_found_before_texts_are_read():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Explainer(Path("nowhere"))
