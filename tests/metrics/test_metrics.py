import pytest
import sacrebleu

from hf_maskattn.metrics.classification import (
    MaskedTokenMetric,
    MultiLabelMetric,
    RegressionMetric,
    SingleLabelMetric,
    SpanMetric,
    are_span_tags,
)
from hf_maskattn.metrics.text import PronunciationMetric, TextMatchMetric, TranslationMetric


def score(metric_class, predictions, references):
    values = metric_class(keep_in_memory=True).compute(predictions=predictions, references=references)
    assert tuple(values) == metric_class.names
    assert all(type(value) is float for value in values.values())
    return values


def test_single_label_counts_rare_classes_as_much_as_frequent_ones():
    values = score(SingleLabelMetric, [0, 0, 0, 0], [0, 0, 0, 1])
    assert values == {"accuracy": 0.75, "macro_f1": pytest.approx((6 / 7 + 0) / 2)}


def test_multi_label():
    values = score(MultiLabelMetric, [[1, 0], [1, 1]], [[1, 0], [0, 1]])
    assert values == {
        "micro_f1": pytest.approx(4 / 5),
        "macro_f1": pytest.approx((2 / 3 + 1) / 2),
        "subset_accuracy": 0.5,
    }


def test_regression():
    values = score(RegressionMetric, [1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert values == {"mse": pytest.approx(14 / 3), "pearson": pytest.approx(1.0)}


@pytest.mark.parametrize(("predictions", "references"), [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0]), ([1.0], [2.0])])
def test_correlation_is_zero_where_a_side_is_constant(predictions, references):
    assert score(RegressionMetric, predictions, references)["pearson"] == 0.0


def test_a_span_counts_only_if_its_ends_and_its_type_are_right():
    references = [["B-DAY", "I-DAY", "O", "B-YEAR"]]
    predictions = [["B-DAY", "O", "O", "B-YEAR"]]
    assert score(SpanMetric, predictions, references) == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.75}


def test_without_any_span_the_scores_are_zero():
    assert score(SpanMetric, [["O", "O"]], [["O", "O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}


def test_masked_tokens():
    assert score(MaskedTokenMetric, [5, 6, 7], [5, 6, 8]) == {"masked_accuracy": pytest.approx(2 / 3)}


def test_a_text_matches_any_of_its_references():
    values = score(TextMatchMetric, ["2026-03-01", "2026-03-02"], [["2026-03-01"], ["2026-03-22", "2026-04-12"]])
    assert values == {"exact_match": 0.5, "cer": 1 / 20}


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [("e\u0301", "é", True), (" a\n", "a", True), ("A", "a", False), ("a  b", "a b", False), ("", "", True), ("", "a", False)],
)
def test_texts_match_in_nfc_with_their_case_and_inner_spaces(prediction, reference, right):
    values = score(TextMatchMetric, [prediction, "x"], [[reference], ["x"]])
    assert values["exact_match"] == (1.0 if right else 0.5)
    assert (values["cer"] == 0) is right


def test_a_word_is_right_if_any_listed_pronunciation_is_predicted():
    listed = ["R EH D", "R IY D"]
    values = score(PronunciationMetric, ["R IY D", " R  EH D", "R IY", "R OW D"], [listed] * 4)
    # The last two need one edit each, of the three phonemes of a listed pronunciation.
    assert values == {"wer": 0.5, "per": 2 / 12}


def test_a_phoneme_is_one_unit_however_it_is_spelled():
    assert score(PronunciationMetric, ["HH"], [["H H"]]) == {"wer": 1.0, "per": 1.0}
    assert score(PronunciationMetric, ["HH IY", ""], [["SH IY"], ["AH"]]) == {"wer": 1.0, "per": 2 / 3}


def test_translations_are_scored_as_sacrebleu_does():
    predictions = ["The dog barks at the cat.", "It was not unexpected.", "The man bit him first."]
    references = [
        ["The dog barks at the cat.", "A dog barked at the cat."],
        ["It was no surprise to anybody."],
        ["The man had bitten the dog.", "The man bit him before."],
    ]
    columns = [[texts[0] for texts in references], [texts[1] if len(texts) > 1 else None for texts in references]]
    assert score(TranslationMetric, predictions, references) == {
        "bleu": pytest.approx(sacrebleu.corpus_bleu(predictions, columns).score),
        "chrf": pytest.approx(sacrebleu.corpus_chrf(predictions, columns).score),
    }


def test_translations_score_from_0_to_100():
    sentence = ["the cat sat on the mat"]
    assert score(TranslationMetric, sentence, [sentence]) == {"bleu": pytest.approx(100), "chrf": pytest.approx(100)}
    assert score(TranslationMetric, [""], [sentence]) == {"bleu": 0.0, "chrf": 0.0}
    assert score(TranslationMetric, ["cafe\u0301 au lait noir"], [["café au lait noir"]])["bleu"] == pytest.approx(100)
    assert score(TranslationMetric, [text.upper() for text in sentence], [sentence])["bleu"] < 50


@pytest.mark.parametrize("metric_class", [TextMatchMetric, PronunciationMetric, TranslationMetric])
def test_texts_without_a_reference_are_an_error(metric_class):
    with pytest.raises(ValueError, match=r"row 1 \(counted from 0\) has no reference"):
        score(metric_class, ["a", "b"], [["a"], []])


@pytest.mark.parametrize(
    ("names", "expected"), [(["O", "B-X", "I-X"], True), (["NOUN", "VERB"], False), (["O"], False), (["O", "X"], False)]
)
def test_span_tags_are_told_from_other_tags(names, expected):
    assert are_span_tags(names) is expected
