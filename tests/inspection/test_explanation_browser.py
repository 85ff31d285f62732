"""Pages of explanations in a browser."""

from contextlib import contextmanager

import pytest
import torch

from hf_maskattn.inspection.explanation_page import render_page
from tests.browser import open_browser
from tests.inspection.explained_pages import HOSTILE, build_explanation

pytestmark = pytest.mark.browser

SCRIPTS = [
    "the old cat",
    "\u0633\u0645\u0643\u0629 old \u062d\u0645\u0631\u0627\u0621",
    "\u05d7\u05ea\u05d5\u05dc",
    "\u732b \u72ac",
    "\u092c\u093f\u0932\u094d\u0932\u0940",
    "e\u0301 \U0001f468\u200d\U0001f469",
]
SWITCHED = build_explanation(
    "good old film", labels=["good", "bad"], scores=torch.tensor([[2.0, -2.0], [0.0, 0.0], [1.0, -4.0]]), predicted=[0]
)


@pytest.fixture(scope="module")
def browser():
    with open_browser() as running:
        yield running


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page, and asserts at the end that it ran nothing, asked for nothing and logged nothing."""

    @contextmanager
    def open_page(page, **options):
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8")
        context = browser.new_context(**options)
        tab = context.new_page()
        events = []
        tab.on("console", lambda message: events.append(message.text))
        tab.on("pageerror", lambda error: events.append(str(error)))
        tab.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: events.append(request.url))
        tab.goto(path.as_uri())
        yield tab
        tab.wait_for_timeout(50)
        assert events == [path.as_uri()]
        context.close()

    return open_page


def test_hostile_texts_do_nothing(visit):
    explanations = [build_explanation(text, labels=HOSTILE) for text in HOSTILE]
    with visit(render_page(explanations, HOSTILE[0])) as tab:
        assert tab.locator("p.scores").all_text_contents() == HOSTILE
        assert tab.locator("h1").text_content() == HOSTILE[0]
        for number in range(len(HOSTILE)):
            tab.locator("select").nth(number).select_option(index=1)
        for element in tab.locator("[data-rows]").all()[:5]:
            element.hover()
        assert tab.locator("img, svg, script:not(body > script)").count() == 0


def test_script_switches_the_class(visit):
    with visit(render_page([SWITCHED, build_explanation("a b")])) as tab:
        pieces = tab.locator("article").first.locator("[data-rows]")

        def read(name):
            return [piece.get_attribute(name) for piece in pieces.all()]

        assert read("class") == ["p10", "z", "p5"]
        tab.locator("select").first.select_option(index=1)
        assert read("class") == ["n5", "z", "n10"]
        assert read("title") == ["good: \u22122.000", "old: 0", "film: \u22124.000"]
        assert tab.locator(".end").all_text_contents()[:2] == ["4.000", "4.000"]
        tab.locator("select").first.select_option(index=0)
        assert read("class") == ["p10", "z", "p5"]


def test_page_is_complete_without_script(visit):
    with visit(render_page([SWITCHED]), java_script_enabled=False) as tab:
        assert tab.locator("[data-rows]").first.get_attribute("class") == "p10"
        assert tab.locator("[data-rows]").first.is_visible()
        assert not tab.locator("select").is_visible()
        tab.locator("summary").click()
        assert tab.locator("tbody tr").first.inner_text().split() == ["good", "+2.000", "\u22122.000"]


def test_tokens_run_in_the_direction_of_their_script(visit):
    with visit(render_page([build_explanation(text) for text in SCRIPTS])) as tab:
        assert tab.locator("p.scores").all_text_contents() == SCRIPTS
        lefts = [
            [piece.bounding_box()["x"] for piece in article.locator("[data-rows]").all()]
            for article in tab.locator("article").all()
        ]
        assert lefts[0] == sorted(lefts[0])
        assert lefts[1] == sorted(lefts[1], reverse=True)
        assert lefts[1][0] > lefts[0][0] + 300  # at the right side of the page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone(visit, scheme):
    words = ["word", "w" * 300, *HOSTILE[0].split()]
    explanations = [
        build_explanation(" ".join(words), words, labels=["l" * 200, "a long name of a class " * 5]),
        build_explanation(
            " ".join(words * 3),
            labels=[f"token{index}" for index in range(40)],
            task="text2text-generation",
            generated_text="x" * 400,
        ),
        build_explanation("word " * 2000),
    ]
    with visit(render_page(explanations, "t" * 200), viewport={"width": 360, "height": 640}, color_scheme=scheme) as tab:
        for summary in tab.locator("summary").all():
            summary.click()
        assert tab.evaluate("document.documentElement.scrollWidth") == 360
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(24, 26, 31)"}[scheme]


def test_tables_of_many_columns_fit_a_sheet(visit):
    explanations = [build_explanation("the old cat sat", labels=[f"name of a class {index}" for index in range(40)])]
    with visit(render_page(explanations), viewport={"width": 718, "height": 1000}) as tab:  # A4 with the default margins
        tab.locator("summary").click()
        tab.emulate_media(media="print")
        assert tab.locator("select").is_visible()  # it says which output the text is colored for
        # Chromium scales a page down to half its size where it is too wide.
        assert 718 < tab.evaluate("document.documentElement.scrollWidth") < 2 * 718


def test_notebook_frame_keeps_its_styles(visit):
    page = f"<!DOCTYPE html><title>n</title><link rel=icon href='data:,'><p class=text>x</p>{SWITCHED._repr_html_()}"
    with visit(page) as tab:
        frame = tab.frame_locator("iframe")
        assert frame.locator("[data-rows]").all_text_contents() == ["good", "old", "film"]
        frame.locator("select").select_option(index=1)
        assert frame.locator("[data-rows]").first.get_attribute("class") == "n5"
        assert tab.evaluate("getComputedStyle(document.querySelector('p')).fontSize") == "16px"
