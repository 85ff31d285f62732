"""The command `hf-maskattn`. Verbs import what they need when they run, so that help comes at once."""

import io
import sys

import typer

from hf_maskattn.cli.audit import audit
from hf_maskattn.cli.benchmark import benchmark
from hf_maskattn.cli.evaluate import evaluate
from hf_maskattn.cli.export import export
from hf_maskattn.cli.predict import predict
from hf_maskattn.cli.push import push
from hf_maskattn.cli.train import train

app = typer.Typer(
    help="Train, score, use and publish masked recurrent attention models, audit any model for padding leaks, measure speed.",
    epilog="Exit codes: 0 done; 1 an audit found a leak, or this program has a defect (with a traceback); 2 a mistake, in one "
    "line on stderr; 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(export)
app.command()(push)
app.command()(audit)
app.command()(benchmark)


def main() -> None:
    """Run the command; a character that the encoding of stdout does not have becomes a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    app(prog_name="hf-maskattn")
