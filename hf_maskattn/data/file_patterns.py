"""The files that a pattern stands for."""

import glob
from pathlib import Path


def matching_files(pattern: str | Path) -> list[Path]:
    """Find the files of a pattern.

    Args:
        pattern: Name of a file, or a pattern such as "data/train-*.parquet". Its leading folders that exist under the names
            that they have in it, such as "data[1]", are taken as they are; so is a file.

    Returns:
        The files that exist, in the order of their names.
    """
    parts = list(Path(pattern).parts)
    known = Path()
    while parts and (known / parts[0]).exists():
        known /= parts.pop(0)
    return sorted(Path(name) for name in glob.glob(str(Path(glob.escape(str(known)), *parts)), recursive=True))
