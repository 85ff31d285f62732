"""Where the rows of a split stand, for error messages: file and line."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_maskattn.data.table_file import TableFile
from hf_maskattn.data.table_reading import count_rows, line_of_row


@dataclass(frozen=True)
class Place:
    """Where a row stands. The line is looked up when the place is written: only errors need it.

    Args:
        row: Number of the row in its files, or in what `source` names, counted from 0.
        files: The files that the rows come from, one after the other; empty where there are none.
        source: What the rows come from, where there are no files; empty for the split itself.
    """

    row: int
    files: Sequence[TableFile] = ()
    source: str = ""

    def __str__(self) -> str:
        """Write "train.csv, line 7", or "row 5 of train.parquet (counted from 0)"."""
        row = self.row
        for file in self.files:
            if file.kind != "parquet" and (line := line_of_row(file, row)) is not None:
                return f"{file}, line {line}"
            rows = count_rows(file)
            if row < rows:
                return f"row {row} of {file} (counted from 0)"
            row -= rows
        return f"row {self.row}{f' of {self.source}' if self.source else ''} (counted from 0)"


@dataclass(frozen=True)
class Places:
    """The places of the rows of a split.

    Args:
        files: The files that the rows come from, one after the other; empty where there are none.
        rows: Number of each row in them; `None` where the rows are in the order of the files.
    """

    files: Sequence[TableFile] = ()
    rows: Sequence[int] | None = None

    def __call__(self, row: int) -> Place:
        """Say where a row of the split stands."""
        return Place(row if self.rows is None else int(self.rows[row]), self.files)

    def select(self, rows: Sequence[int]) -> "Places":
        """Give the places of some of the rows."""
        return Places(self.files, [self(row).row for row in rows])
