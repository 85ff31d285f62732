"""The command `demo`."""

from typing import Annotated

import typer

from hf_maskattn.cli.console import exit_on_error
from hf_maskattn.cli.options import Model, Revision


def demo(
    model: Model,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 7860,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to serve on; 0.0.0.0 is every address of this machine.")
    ] = "127.0.0.1",
    revision: Revision = None,
) -> None:
    """Serve a page on this machine that shows predictions and their explanations as one types, until Ctrl-C.

    For classifiers of texts, taggers and text to text. Texts are neither stored nor sent to another machine.
    """
    with exit_on_error():
        from hf_maskattn.cli.console import show_messages
        from hf_maskattn.inference.demo import check_address, serve_demo
        from hf_maskattn.loading import download_revision

        check_address(host, port)
        show_messages()
        serve_demo(download_revision(model, revision), host=host, port=port)
