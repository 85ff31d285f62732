"""The command `hf-maskattn`. Each command imports what it needs when it runs, so that help is shown at once."""

import typer

from hf_maskattn.cli.audit import audit
from hf_maskattn.cli.benchmark import benchmark
from hf_maskattn.cli.console import main, set_options
from hf_maskattn.cli.demo import demo
from hf_maskattn.cli.evaluate import evaluate
from hf_maskattn.cli.explain import explain
from hf_maskattn.cli.export import export
from hf_maskattn.cli.predict import predict
from hf_maskattn.cli.push import push
from hf_maskattn.cli.recipes import init, recipes
from hf_maskattn.cli.train import train
from hf_maskattn.cli.tune import tune

app = typer.Typer(
    help="Train, evaluate, use and publish recurrent attention models; audit any model for effects of padding; measure speed.",
    epilog="Exit codes: 0 success; 1 a check failed (audit, benchmark) or a text has no prediction; 2 an error of usage, "
    "printed in one line; 130 Ctrl-C. An error with a traceback is a bug of this program.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.callback()(set_options)
for command in (train, tune, evaluate, predict, explain, demo, export, push, recipes, init, audit, benchmark):
    app.command()(command)

__all__ = ["app", "main"]
