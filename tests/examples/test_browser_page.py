"""The page of examples/browser in a browser, with a small model, served from a folder."""

import http.server
import json
import shutil
import subprocess
import threading
from functools import partial

import pytest
import torch

from hf_maskattn import explain
from hf_maskattn.onnx.export import write_onnx
from tests.browser import Visit, open_browser
from tests.inspection.explained_models import build_model, tag_names
from tests.tolerances import MANY_STEPS

pytestmark = pytest.mark.browser

TEXTS = ["the old cat sat", "Two  dogs!", "a", "zebra 🙂 mat"]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def modules(tmp_path_factory, pytestconfig):
    """The packages of npm that the page reads."""
    folder = tmp_path_factory.mktemp("npm")
    shutil.copy(pytestconfig.rootpath / "examples/browser/package.json", folder)
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    if shutil.which("npm") is None or subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip(f"The page needs packages of npm: {' '.join(command)}")
    return folder / "node_modules"


@pytest.fixture
def serve(tmp_path):
    """Serves the folder on a free port."""
    handler = partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("kind", ["char", "word"])
def test_page_classifies_as_pytorch_does(modules, serve, tmp_path, pytestconfig, kind):
    torch.manual_seed(1)
    model, tokenizer = build_model(kind=kind, **tag_names("x", "y", "z"), num_attention_heads=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_onnx(model, tmp_path / "model.onnx", contributions=True)
    for name in ("index.html", "classify.js"):
        shutil.copy(pytestconfig.rootpath / "examples/browser" / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    with open_browser() as browser:
        visit = Visit(browser, f"{serve}/index.html")
        visit.page.get_by_text("Nothing is sent").wait_for(timeout=60_000)
        for explanation in explain(model, tokenizer, TEXTS):
            found = visit.page.evaluate(f"classify({json.dumps(explanation.text)})")
            assert found["labels"] == explanation.labels
            torch.testing.assert_close(torch.tensor(found["logits"]), explanation.logits, atol=MANY_STEPS, rtol=0)
            scores = torch.tensor(found["contributions"])
            torch.testing.assert_close(scores, explanation.scores, atol=MANY_STEPS, rtol=0)
            label = explanation.labels[explanation.predicted[0]]
            visit.page.get_by_label("Text").fill(explanation.text)
            visit.page.locator("#labels tr:first-child td:first-child", has_text=label).wait_for()
            column = scores[:, explanation.predicted[0]]
            titles = [f"{score:.3f}" for score in column.tolist()]
            visit.page.wait_for_function(f"document.querySelectorAll('#tokens span').length === {len(titles)}")
            spans = visit.page.locator("#tokens span")
            assert [span.get_attribute("title") for span in spans.all()] == titles
        visit.page.get_by_label("Text").fill("")
        visit.page.wait_for_function("document.querySelectorAll('#tokens span').length === 0")
        assert visit.errors == []
        assert visit.requests_beyond(serve) == []
