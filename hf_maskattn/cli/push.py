"""The command `push`."""

from typing import Annotated

import typer

from hf_maskattn.cli.console import exit_on_error


def push(
    model: Annotated[str, typer.Argument(help="Folder of the model, such as the output folder of a run.")],
    repo_id: Annotated[str, typer.Argument(help="Repository, `name` or `user/name`. Created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to. Created if it does not exist.")] = None,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of committing to the branch.")
    ] = False,
    token: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Publish a model on the Hugging Face Hub in one commit, to be loaded with or without this package.

    The token comes from `hf auth login` or the environment variable HF_TOKEN.
    """
    with exit_on_error():
        if token is not None:
            raise ValueError(
                "--token is not supported, because shells save their commands. Run `hf auth login`, or set the environment "
                "variable HF_TOKEN."
            )
        from huggingface_hub import constants
        from huggingface_hub.utils import enable_progress_bars

        from hf_maskattn.cli.console import show_messages, show_publication
        from hf_maskattn.hub.publish import publish

        show_messages()
        if not constants.HF_HUB_DISABLE_PROGRESS_BARS:
            enable_progress_bars()
        publication = publish(model, repo_id, private=private or None, revision=revision, message=message, create_pr=create_pr)
        show_publication(publication)
