"""Error rates by edit distance; the only file that imports jiwer."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal

from hf_maskattn.model.code_version import install_command


def require_jiwer() -> None:
    """Find out before a training, not after its first epoch, whether edits can be counted.

    Raises:
        ImportError: If jiwer is not installed.
    """
    if find_spec("jiwer") is None:
        raise ImportError(f"Error rates need jiwer, which is not installed: {install_command('examples')}")


def error_rate(predictions: Sequence[str], references: Sequence[Sequence[str]], *, unit: Literal["character", "word"]) -> float:
    """Count the edits that turn each prediction into the reference closest to it.

    An edit is a unit that is put in, left out or replaced. Of references that are equally close, the first counts.

    Args:
        predictions: A text for each row.
        references: The right texts of each row, at least one.
        unit: What is counted: characters, or words apart by white space.

    Returns:
        Edits of all rows, divided by the units of their closest references; above 1 where there are more edits.

    Raises:
        ImportError: If jiwer is not installed.
        ValueError: If all of the closest references are empty.

    Source:
        The Levenshtein distance, as computed by jiwer.
    """
    require_jiwer()
    import jiwer

    process: Callable[..., Any] = jiwer.process_characters if unit == "character" else jiwer.process_words
    # One call for all pairs; the references of a row stand next to each other.
    counted = process(
        [text for texts in references for text in texts],
        [prediction for prediction, texts in zip(predictions, references, strict=True) for _ in texts],
    )
    edits = [sum(_size(chunk) for chunk in chunks if chunk.type != "equal") for chunks in counted.alignments]
    ends = [0]
    for texts in references:
        ends.append(ends[-1] + len(texts))
    closest = [min(range(start, end), key=edits.__getitem__) for start, end in pairwise(ends)]
    units = sum(len(counted.references[pair]) for pair in closest)
    if units == 0:
        raise ValueError(f"There is no {unit} in the references of this evaluation, an error rate cannot be computed.")
    return sum(edits[pair] for pair in closest) / units


def _size(chunk: Any) -> int:
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
