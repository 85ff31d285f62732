import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.inspection.explain import explain
from hf_maskattn.inspection.explanation_page import render_page
from hf_maskattn.inspection.explanations import diverging_color, relative_luminance, text_color
from tests.inspection.explained_models import TEXTS, build_model
from tests.inspection.explained_pages import HOSTILE, build_explanation


class Page(HTMLParser):
    """The elements of a page, the text of each, and the attributes of each."""

    EMPTY = ("meta", "link")

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.open = [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in self.EMPTY:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for *_, text in self.open:
            text.append(data)

    def texts(self, tag, class_=""):
        return [
            "".join(text) for name, attributes, text in self.elements if name == tag and class_ in attributes.get("class", "")
        ]

    def attributes(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def pieces(self):
        """Text, class and title of each colored piece."""
        return [("".join(text), values["class"], values["title"]) for _, values, text in self.elements if "data-rows" in values]


def as_shown(text):
    """Return a text without the characters that HTML does not allow."""
    return re.sub(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)


def words_of(text):
    return [part for part in re.split(r"(\s+)", text) if part.strip()]


ANY_TEXT = st.one_of(
    st.text(min_size=1, max_size=40),
    st.lists(
        st.sampled_from([*HOSTILE, "\u05d0\u05d1", "e\u0301", "\U0001f468\u200d\U0001f469", "\ud800", "\u202e", "\t"])
    ).map(" ".join),
).filter(str.strip)


@given(text=ANY_TEXT, label=ANY_TEXT, title=st.sampled_from(HOSTILE))
def test_any_text_stays_text(text, label, title):
    tokens = words_of(text)
    page = Page(render_page([build_explanation(text, tokens, [label, "y"], predicted=[0])], title))
    (shown,) = page.texts("p", "scores")
    assert shown == as_shown(text)
    assert "".join(piece for piece, *_ in page.pieces()).split() == as_shown("".join(tokens)).split()
    assert page.texts("h1") == [title]
    assert page.texts("h2")[0].startswith(as_shown(label))
    tags = {tag for tag, *_ in page.elements}
    assert not tags & {"img", "svg", "iframe", "a", "form", "object", "base"}
    assert [len(page.attributes(tag)) for tag in ("script", "style", "article", "title")] == [1, 1, 1, 1]
    names = {name for _, attributes, _ in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (names & {"style", "src", "srcset", "action", "autofocus"})


def test_page_allows_only_its_own_style_and_script():
    page = Page(render_page([build_explanation("a b")]))
    (policy,) = (values["content"] for values in page.attributes("meta") if "http-equiv" in values)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (text,) = page.texts(tag)
        assert f"{tag}-src 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" in policy
        assert not re.search(r"https?:|@import|url\(|fetch|innerHTML|eval", text)
    assert page.attributes("link") == [{"rel": "icon", "href": "data:,"}]
    assert page.attributes("html") == [{"lang": "en"}]
    assert {values.get("dir") for values in page.attributes("p") if "text" in values.get("class", "")} == {"auto"}


def test_tokens_have_their_colors_and_scores():
    explanation = build_explanation(
        "good  old\nfilm", scores=torch.tensor([[2.0, 0.0], [-1.0, 0.5], [0.04, 4.0]]), predicted=[0]
    )
    page = Page(render_page([explanation]))
    assert page.pieces() == [("good", "p10", "good: +2.000"), ("old", "n5", "old: \u22121.000"), ("film", "z", "film: +0.040")]
    assert [values["data-scale"] for values in page.attributes("option")] == ["2.000", "4.000"]
    assert page.texts("th")[:2] == ["x", "y"]
    assert page.texts("tr")[2].split() == ["old\u22121.000+0.500"]
    assert page.texts("tr")[-2:] == ["base\u22121.0001.000", "logit0.0405.500"]


def test_parts_of_one_character_have_one_color():
    text = "e\u0301a \U0001f468\u200d\U0001f469 x"
    offsets = [(0, 1), (1, 2), (2, 3), (4, 5), (4, 5), (5, 6), (6, 7), (8, 9)]
    tokens = [text[start:end] for start, end in offsets]
    scores = torch.tensor([[0.25], [0.25], [0.1], [0.5], [0.25], [0.125], [0.125], [-1.0]])
    page = Page(render_page([build_explanation(text, tokens, ["x"], offsets=offsets, scores=scores)]))
    colors = [(piece, color) for piece, color, _ in page.pieces()]
    assert colors == [("e\u0301", "p5"), ("a", "p1"), ("\U0001f468\u200d\U0001f469", "p10"), ("x", "n10")]
    assert page.pieces()[0][2] == "e: +0.250, ◌\u0301: +0.250"
    assert page.texts("p", "scores") == [text]


def test_special_tokens_and_spans_are_in_order():
    special = build_explanation("a b", ["[CLS]", "a", "b", "[SEP]"], offsets=[(0, 0), (0, 1), (2, 3), (0, 0)])
    assert Page(render_page([special])).texts("p", "scores") == ["[CLS]a b[SEP]"]
    spans = build_explanation("one two", ["two", "one"], offsets=[(4, 7), (0, 3)], unit="span")
    assert [piece for piece, *_ in Page(render_page([spans])).pieces()] == ["one", "two"]


def test_texts_without_scores_are_shown():
    empty = build_explanation(" ", [], [], scores=torch.zeros(0, 0))
    unknown = build_explanation("zebra lion", all_unknown=True)
    page = Page(render_page([empty, unknown]))
    assert page.texts("p", "soft") == [
        "The text has no visible character.",
        "All tokens of this text are unknown to the tokenizer of the model.",
    ]
    assert len(page.attributes("table")) == 1
    assert Page(render_page([])).texts("h1") == ["Explanations"]


def test_all_predicted_classes_are_listed():
    many = build_explanation("a b", labels=["x", "y", "z"], predicted=[2, 0], logits=torch.tensor([1.0, 3.0, 2.0]))
    page = Page(render_page([many]))
    assert page.texts("h2") == ["z logit 2.000, x logit 1.000"]
    assert page.texts("th")[:3] == ["z", "x", "y"]
    regression = build_explanation("a b", labels=["LABEL_0"], logits=torch.tensor([2.5]))
    assert Page(render_page([regression])).texts("h2") == ["LABEL_0 logit 2.500"]


@pytest.mark.parametrize(
    ("tags", "entities", "marks"),
    [
        (
            ["O", "B-CITY", "I-CITY", "B-D:<b>"],
            [
                {"entity_group": "CITY", "score": 0.5, "word": "New York", "start": 3, "end": 11},
                {"entity_group": "D:<b>", "score": 0.994, "word": "May", "start": 13, "end": 16},
            ],
            ["New York CITY 0.50", "May D:<b> 0.99"],
        ),
        (
            ["O", "NOUN", "NOUN", "O"],
            [
                {"entity": "NOUN", "score": 0.25, "word": "New", "start": 3, "end": 6},
                {"entity": "O", "score": 0.9, "word": "May", "start": 13, "end": 16},
            ],
            ["New NOUN 0.25"],
        ),
    ],
)
def test_entities_are_marked_in_the_text(tags, entities, marks):
    words = ["in", "New", "York", "May"]
    labels = [f"{word}: {tag}" for word, tag in zip(words, tags, strict=True)]
    predicted = [index for index, tag in enumerate(tags) if tag != "O"]
    logits = torch.tensor([1.0, 2.0, 3.0, 4.0])
    text = "in New York, May"
    changes = {"predicted": predicted, "logits": logits, "method": "removal", "entities": entities}
    explanation = build_explanation(text, words, labels, "token-classification", **changes)
    explanation.scores.fill_diagonal_(float("nan"))
    page = Page(render_page([explanation]))
    assert page.texts("h2") == [f"{len(predicted)} of 4 tokens have a tag"]
    assert [mark.replace(" ", "") for mark in page.texts("mark")] == [mark.replace(" ", "") for mark in marks]
    assert page.attributes("mark")[0]["title"] == f"{entities[0].get('entity_group', 'NOUN')}, score {marks[0][-4:]}"
    assert len(page.attributes("option")) == len(predicted)
    assert ("New", "z", "New: \u2013") in page.pieces()


def test_taggers_without_entities_have_no_colors():
    explanation = build_explanation("a b", labels=["a: O", "b: O"], task="token-classification", predicted=[], entities=[])
    page = Page(render_page([explanation]))
    assert page.texts("p", "entities") == ["a b"]
    assert page.texts("p", "soft") == ["No token has another tag than O."]


def test_generated_text_is_aligned_with_its_source():
    explanation = build_explanation(
        "ab cd",
        labels=["1", "2", "</s>"],
        task="text2text-generation",
        method="removal",
        generated_text="12",
        predicted=[0, 1, 2],
    )
    page = Page(render_page([explanation]))
    assert page.texts("th")[:5] == ["whole output", "1", "2", "</s>", "ab"]
    assert page.attributes("details") == []  # the table is in sight
    assert page.texts("h2") == [
        f"12 log-probability {explanation.logits.sum():.3f}".replace("-probability -", "-probability \u2212")
    ]
    nothing = build_explanation("ab", labels=[], task="text2text-generation", generated_text="", scores=torch.zeros(1, 0))
    assert Page(render_page([nothing])).texts("h2")[0].startswith("(empty output)")


def test_models_of_each_task_have_pages(classifier, tagger, joint):
    for model, method in (
        (classifier, None),
        (classifier, "attention"),
        (tagger, None),
        (joint, None),
        (build_model("RNNSearchForConditionalGeneration"), None),
    ):
        explanations = explain(*model, TEXTS, method)
        page = Page(render_page(explanations))
        assert page.texts("p", "scores") == [text for text, item in zip(TEXTS, explanations, strict=True) if item.views()]
        assert explanations[0].to_html() == render_page(explanations[:1])
        is_tagged = model in (tagger, joint)
        assert len(page.texts("p", "entities")) == (len(TEXTS) if is_tagged else 0)
        assert len(page.texts("mark")) == sum(len(item.entities or ()) for item in explanations)


def test_small_scores_have_three_digits():
    page = Page(
        render_page([build_explanation("a b", labels=["x"], scores=torch.tensor([[0.00012], [0.00034]]), method="attention")])
    )
    assert [title for *_, title in page.pieces()] == ["a: +0.000120", "b: +0.000340"]
    assert page.texts("div", "legend")[0].split() == ["0", "+0.000340"]


def test_pages_of_long_texts_leave_out_columns(monkeypatch):
    assert len(render_page([build_explanation("word " * 2000)])) < 500_000
    monkeypatch.setattr("hf_maskattn.inspection.explanation_page._MAX_CELLS", 1000)
    labels = [f"class {index}" for index in range(40)]
    page = Page(render_page([build_explanation("w " * 100, labels=labels), build_explanation("w " * 100)]))
    assert len(page.attributes("option")) == 5 + 2
    assert page.texts("caption")[0].endswith("35 more columns are left out")


def test_notebooks_show_the_page_in_a_frame():
    explanation = build_explanation('a "b" <c>')
    ((tag, attributes, text),) = Page(explanation._repr_html_()).elements
    assert (tag, text, attributes["sandbox"]) == ("iframe", [], "allow-scripts")
    assert attributes["srcdoc"] == explanation.to_html()


@pytest.mark.parametrize("is_dark", [False, True])
def test_text_is_readable_on_every_color(is_dark):
    for level in range(-10, 11):
        color = diverging_color(level / 10, is_dark=is_dark)
        ink = {"black": (0, 0, 0), "white": (255, 255, 255)}[text_color(color)]
        low, high = sorted(relative_luminance(value) + 0.05 for value in (color, ink))
        assert high / low >= 4.5
    ends = [diverging_color(value, is_dark=is_dark) for value in (-1.0, 1.0)]
    assert ends[0][2] > ends[0][0] + 100  # blue
    assert ends[1][0] > ends[1][2] + 100  # orange
