"""The command `hf-maskattn`. Each command imports what it needs when it runs, so that help is shown at once."""

import io
import sys
from typing import Annotated

import typer

from hf_maskattn import __version__
from hf_maskattn.cli.audit import audit
from hf_maskattn.cli.benchmark import benchmark
from hf_maskattn.cli.evaluate import evaluate
from hf_maskattn.cli.export import export
from hf_maskattn.cli.predict import predict
from hf_maskattn.cli.push import push
from hf_maskattn.cli.recipes import init, recipes
from hf_maskattn.cli.train import train

app = typer.Typer(
    help="Train, evaluate, use and publish recurrent attention models; audit any model for effects of padding; measure speed.",
    epilog="Exit codes: 0 success; 1 a check failed (audit, benchmark) or a text has no prediction; 2 an error of usage, "
    "printed in one line; 130 Ctrl-C. An error with a traceback is a bug of this program.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (train, evaluate, predict, export, push, recipes, init, audit, benchmark):
    app.command()(command)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"hf-maskattn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command. A character that the encoding of stdout does not have is printed as a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    app(prog_name="hf-maskattn")
