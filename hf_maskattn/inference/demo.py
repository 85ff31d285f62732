"""A page on this machine that shows the prediction for a text and its explanation as one types, made with gradio."""

import logging
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig

from hf_maskattn.hub.model_card import parse_model_card
from hf_maskattn.inspection.explain import Explainer, list_methods
from hf_maskattn.inspection.explanation_page import render_frame
from hf_maskattn.inspection.explanations import UNITS, Explanation, Method, Unit
from hf_maskattn.loading import find_file
from hf_maskattn.model.remote_code import install_command

if TYPE_CHECKING:
    import gradio

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PORT = 7860

_MAX_CHARACTERS = 2000
_NUM_LABELS = 5
_POLL_SECONDS = 0.2
_FRAME_HEIGHT = "38rem"


def serve_demo(model: str | Path, *, host: str = LOOPBACK, port: int = PORT) -> None:
    """Serve a page with a model until Ctrl-C: it shows the prediction for a text and its explanation as one types.

    The page needs nothing from other machines, sends nothing to them, and stores no text. Only programs on this machine reach
    it, unless another host is chosen.

    Args:
        model: Folder of a classifier, tagger or encoder-decoder, or its name on the Hub.
        host: Address to serve on; "0.0.0.0" serves on all addresses of this machine.
        port: Port to serve on.

    Raises:
        OSError: If the port is in use, the host is no address of this machine, or there is no such model.
        ImportError: If gradio is not installed.
        ValueError: If the predictions of the model cannot be explained.
    """
    check_address(host, port)
    gradio = _import_gradio()
    page = build_page(Explainer(model), read_examples(model), title=Path(model).name)
    page.launch(
        server_name=host,
        server_port=port,
        # The default theme loads its fonts from another machine.
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        prevent_thread_lock=True,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        share=False,
        ssr_mode=False,
        show_error=True,
        quiet=True,
    )
    try:
        logger.info(f"Demo: http://{host}:{port} (stop it by Ctrl-C)")
        while page.is_running:
            time.sleep(_POLL_SECONDS)
    finally:
        page.close(verbose=False)


def build_page(explainer: Explainer, examples: list[str], title: str) -> "gradio.Blocks":
    """Build the page of a model. The explainer has the method that is selected, and the first example is shown, at first.

    Raises:
        ImportError: If gradio is not installed.
    """
    gradio = _import_gradio()
    config, task = explainer.model.config, explainer.task
    methods, _ = list_methods(config, task)
    explainers = {explainer.method: explainer}

    def explain(text: str, method: Method, unit: Unit) -> list[Any]:
        if method not in explainers:
            explainers[method] = explainer.with_method(method)
        (explanation,) = explainers[method].explain_each([text], unit=unit)
        frame = render_frame(explanation, _FRAME_HEIGHT) if explanation.tokens else ""
        # The page of a tagger marks what is predicted in the text.
        return [frame] if task == "token-classification" else [describe_prediction(explanation, config), frame]

    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown(f"# {title}")
        with gradio.Row():
            with gradio.Column():
                text = gradio.Textbox(
                    examples[0] if examples else "",
                    label=f"Text (at most {_MAX_CHARACTERS:,} characters)",
                    lines=3,
                    max_length=_MAX_CHARACTERS,
                )
                with gradio.Row():
                    method = gradio.Dropdown(methods, value=explainer.method, label="Method")
                    unit = gradio.Radio(UNITS, value="token", label="Unit")
            outputs = []
            if task == "text-classification":
                outputs.append(gradio.Label(label="Prediction", num_top_classes=_NUM_LABELS))
            elif task == "text2text-generation":
                outputs.append(gradio.Textbox(label="Generated text", lines=3, interactive=False))
        if examples:
            gradio.Examples([[example] for example in examples], text, label="Examples", cache_examples=False)
        outputs.append(gradio.HTML())
        gradio.on(
            [page.load, text.change, method.change, unit.change],
            explain,
            [text, method, unit],
            outputs,
            trigger_mode="always_last",
            concurrency_limit=1,
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def describe_prediction(explanation: Explanation, config: PreTrainedConfig) -> dict[str, float] | str:
    """Describe a prediction: the probability of each label, the number of a regression, or the generated text.

    The explanation is of all labels of a classifier of texts, or of a generated text.
    """
    if explanation.generated_text is not None:
        return explanation.generated_text
    if not explanation.labels:
        return ""
    if config.problem_type == "regression":
        return ", ".join(f"{number:.4g}" for number in explanation.logits.tolist())
    is_multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
    probabilities = explanation.logits.sigmoid() if is_multi_label else explanation.logits.softmax(dim=0)
    return dict(zip(explanation.labels, probabilities.tolist(), strict=True))


def read_examples(model: str | Path) -> list[str]:
    """Read the texts of the widget in the card of a model; none without a card, or if its header is not valid."""
    path = find_file(model, "README.md")
    if path is None:
        return []
    try:
        items = parse_model_card(Path(path).read_text("utf-8")).data.get("widget")
    except ValueError:
        return []
    items = items if isinstance(items, list) else []
    texts = [item.get("text") for item in items if isinstance(item, dict)]
    return [text for text in texts if isinstance(text, str)]


def check_address(host: str, port: int) -> None:
    """Reject an address that cannot be served on.

    Raises:
        OSError: If the port is in use, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{host}:{port} must be a free address of this machine, got: {reason}. Choose another port by --port, or the host "
            f"{LOOPBACK}."
        ) from error


def _import_gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"The demo needs gradio. Install it: {install_command('demo')}") from error
    return gradio
