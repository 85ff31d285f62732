import socket
import sys

import pytest
import torch

from hf_maskattn.inference.demo import check_address, describe_prediction, read_examples, serve_demo
from hf_maskattn.inspection.explanations import Explanation


def write_card(folder, header):
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text(f"---\n{header}\n---\n# A model\n", encoding="utf-8")


def test_examples_are_those_of_the_card(tmp_path):
    assert read_examples(tmp_path) == []
    write_card(tmp_path, "widget:\n- text: Malmö\n- text: 7\n- src: image.png\n- text: Lund")
    assert read_examples(tmp_path) == ["Malmö", "Lund"]


@pytest.mark.parametrize("header", ["license: mit", "widget: none", "widget: [a", "- a"])
def test_card_without_examples_is_no_error(tmp_path, header):
    write_card(tmp_path, header)
    assert read_examples(tmp_path) == []


def explain_logits(logits, task="text-classification", **changes):
    values, labels = torch.tensor(logits), ["a", "b"][: len(logits)]
    scores = torch.zeros(1, len(logits))
    return Explanation("x", task, "removal", "token", ["x"], [(0, 1)], labels, scores, values, values, [0], **changes)


def test_prediction_is_probabilities_number_or_text(tiny_config):
    explanation = explain_logits([0.0, 0.0])
    assert describe_prediction(explanation, tiny_config(num_labels=2)) == {"a": 0.5, "b": 0.5}
    multi_label = tiny_config(num_labels=2, problem_type="multi_label_classification")
    probabilities = describe_prediction(explain_logits([0.0, 30.0]), multi_label)
    assert probabilities == pytest.approx({"a": 0.5, "b": 1.0})
    regression = tiny_config(num_labels=1, problem_type="regression")
    assert describe_prediction(explain_logits([2.5]), regression) == "2.5"
    generated = explain_logits([0.0], "text2text-generation", generated_text="y")
    assert describe_prediction(generated, tiny_config()) == "y"


def test_text_without_tokens_has_no_prediction(tiny_config):
    nothing = torch.zeros(0)
    empty = Explanation(" ", "text-classification", "removal", "token", [], [], [], torch.zeros(0, 0), nothing, nothing, [])
    assert describe_prediction(empty, tiny_config()) == ""


def test_busy_port_is_named():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} must be a free address .* in use. Choose another port by --port"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)
    with pytest.raises(OSError, match=r"198\.51\.100\.1:7860 must be a free address of this machine"):
        check_address("198.51.100.1", 7860)


def test_missing_gradio_is_named_before_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("hf_maskattn.inference.demo.check_address", lambda host, port: None)
    with pytest.raises(ImportError, match=r'The demo needs gradio\. Install it: pip install "hf-maskattn\[demo\] @ git'):
        serve_demo(tmp_path / "no-model")
