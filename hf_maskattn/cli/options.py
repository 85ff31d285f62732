"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="Folder of the model, or its name on the Hub.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[GROUP.KEY=VALUE]...", help="Changes to the recipe.")]
Texts = Annotated[list[str] | None, typer.Option(help="A text. Repeat the option for several texts.")]
TextsFile = Annotated[
    Path | None,
    typer.Option(help="UTF-8 file with a text on each line, or a .jsonl, .json, .csv, .tsv or .parquet file of rows."),
]
BatchSize = Annotated[int, typer.Option(help="Maximum number of texts in a batch.")]
MaxLength = Annotated[int | None, typer.Option(help="Truncate texts to this number of tokens. By default none is truncated.")]
