"""Shows what is on the Hub after a model was published, and how to load it."""

from rich.console import Console

from hf_maskattn.export.hub import Publication


def show_publication(publication: Publication) -> None:
    """Print the address, what the commit changed, and the lines that load the model."""
    commit = publication.commit[:7]
    if publication.is_new:
        done = f"Published: {publication.url} (commit {commit}: {len(publication.changed)} of {len(publication.files)} files"
        removed = f", removed: {', '.join(publication.removed)}" if publication.removed else ""
        lines = [f"{done}{removed})"]
    else:
        lines = [f"Nothing to publish: {publication.url} has these {len(publication.files)} files already (commit {commit})"]
    lines += [
        f"Load:      import hf_maskattn, transformers; transformers.{publication.loading_call()}",
        f"Anywhere:  import transformers; transformers.{publication.loading_call(trust_remote_code=True)}",
    ]
    console = Console()
    for line in lines:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
