"""The page of `hf-maskattn demo` in a browser, served by the command."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from hf_maskattn.inference.predict import predict
from tests.browser import Visit, open_browser
from tests.inspection.explained_models import build_model, tag_names

pytestmark = pytest.mark.browser

TAGS = tag_names("O", "B-A", "I-A")
HEADS = {
    "text-classification": ("MaskAttnForSequenceClassification", tag_names("x", "y", "z")),
    "token-classification": ("MaskAttnForTokenClassification", TAGS),
    "joint-classification": ("MaskAttnForJointClassification", {"sequence_label_names": ["x", "y"], "use_crf": True, **TAGS}),
    "text2text-generation": ("RNNSearchForConditionalGeneration", {}),
}
CARD = "---\nwidget:\n- text: the old cat\n- text: two dogs\n---\n# A model\n"
WAIT = 60_000  # milliseconds


def save_model(task, folder):
    torch.manual_seed(3)
    head, changes = HEADS[task]
    model, tokenizer = build_model(head, **changes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)


@contextmanager
def run_demo(folder):
    """Run the command on a free port; yields its process and address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hf_maskattn", "demo", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        first_line = process.stderr.readline()
        assert first_line == f"Demo: http://127.0.0.1:{port} (stop it by Ctrl-C)\n", first_line + process.stderr.read()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def browser():
    pytest.importorskip("gradio", reason='The demo needs gradio: pip install "hf-maskattn[demo]"')
    with open_browser() as running:
        yield running


def test_label_follows_what_is_typed(browser, tmp_path):
    save_model("text-classification", tmp_path)
    texts = ["the old cat", "two dogs", "mat", "a warm red mat", "it slept near"]
    labels = {line["text"]: line["predictions"][0]["label"] for line in predict(tmp_path, texts)}
    other = next(text for text in texts[1:] if labels[text] != labels[texts[0]])
    with run_demo(tmp_path) as (process, url):
        visit = Visit(browser, url)
        page = visit.page
        label = page.get_by_test_id("label-output-value")
        frame = page.frame_locator("iframe")
        label.get_by_text(labels[texts[0]], exact=True).wait_for(timeout=WAIT)  # the first example
        page.get_by_label("Text (at most").fill("")
        page.get_by_label("Text (at most").press_sequentially(other, delay=20)
        label.get_by_text(labels[other], exact=True).wait_for(timeout=WAIT)
        frame.locator(".scores", has_text=other).wait_for(timeout=WAIT)
        page.get_by_label("word").check()
        frame.get_by_text("score of each word").first.wait_for(timeout=WAIT, state="attached")
        page.get_by_role("button", name="the old cat").click()
        label.get_by_text(labels[texts[0]], exact=True).wait_for(timeout=WAIT)
        page.get_by_label("Text (at most").fill("<img src=x onerror=alert(1)>")
        frame.locator(".scores", has_text="onerror").wait_for(timeout=WAIT)
        assert frame.locator("img").count() == 0
        assert visit.errors == []
        assert visit.requests_beyond(url) == []
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "Interrupted.\n"


@pytest.mark.parametrize("task", ["token-classification", "joint-classification", "text2text-generation"])
def test_page_shows_other_tasks(browser, tmp_path, task):
    text = "two small dogs slept"
    save_model(task, tmp_path)
    with run_demo(tmp_path) as (_, url):
        visit = Visit(browser, url)
        visit.page.get_by_label("Text (at most").fill(text)
        frame = visit.page.frame_locator("iframe")
        frame.locator(".text", has_text=text).first.wait_for(timeout=WAIT)
        (line,) = predict(tmp_path, [text])
        if task != "text2text-generation":
            found = line["predictions"] if task == "token-classification" else line["predictions"][0]["entities"]
            marks = [f"{item['word']}{item['entity_group']} {item['score']:.2f}" for item in found]
            assert frame.locator("mark").all_text_contents() == marks
            assert marks
        if task == "joint-classification":
            visit.page.get_by_test_id("label-output-value").get_by_text(line["predictions"][0]["label"], exact=True).wait_for()
        if task == "text2text-generation":
            assert visit.page.get_by_label("Generated text").input_value() == line["predictions"][0]["generated_text"]
        assert visit.errors == []
        assert visit.requests_beyond(url) == []
