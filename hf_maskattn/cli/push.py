"""The verb `push`."""

from typing import Annotated

import typer

from hf_maskattn.cli.errors import told_in_one_line


def push(
    model: Annotated[str, typer.Argument(help="Folder of the model, such as the output folder of a run.")],
    repo_id: Annotated[str, typer.Argument(help="Repository, `name` or `user/name`; it is made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository so that only its owner sees it.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to commit to; it is made if it is not there.", show_default=False)
    ] = None,
    message: Annotated[str | None, typer.Option(help="What the commit is called.", show_default=False)] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request, instead of committing to the branch.")
    ] = False,
    token: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Publish a model on the Hugging Face Hub, in one commit that loads with this package and without it.

    The token is that of `hf auth login`, or of the variable HF_TOKEN.
    """
    with told_in_one_line():
        if token is not None:
            raise ValueError(
                "a token does not belong on a command line, which the shell remembers: run `hf auth login`, or set "
                "the variable HF_TOKEN."
            )
        from huggingface_hub import constants
        from huggingface_hub.utils import enable_progress_bars

        from hf_maskattn.cli.errors import show_messages
        from hf_maskattn.cli.tables import show_publication
        from hf_maskattn.hub.publish import publish

        show_messages()
        if not constants.HF_HUB_DISABLE_PROGRESS_BARS:
            enable_progress_bars()
        publication = publish(model, repo_id, private=private or None, revision=revision, message=message, create_pr=create_pr)
        show_publication(publication)
