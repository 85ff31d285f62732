"""Tag schemes: which entities the tags of a sentence mark, and the same entities in IOB2, which pipelines read."""

import logging
import re
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Literal, NamedTuple

TagScheme = Literal["IOB1", "IOB2", "BIOES", "BILOU", "none"]
"""How tags mark entities: "none" for tags that stand for themselves, such as parts of speech."""

logger = logging.getLogger(__name__)

_TAG = re.compile(r"([BIMELSUW])-(.+)", re.DOTALL)
_ROLES = {"B": "begin", "I": "inside", "M": "inside", "E": "end", "L": "end", "S": "single", "U": "single", "W": "single"}
_PREFIXES: dict[TagScheme, str] = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIMESW", "BILOU": "BIMLU"}


class Entity(NamedTuple):
    """An entity of a sentence.

    Args:
        type: Its type, such as "PER".
        first: Index of its first word.
        last: Index of its last word.
    """

    type: str
    first: int
    last: int


def detect_tag_scheme(names: Iterable[str], sentences: Iterable[Sequence[str]]) -> TagScheme:
    """Detect the scheme of tags by their prefixes; IOB1 and IOB2, which share these, by which one is contradicted less often.

    Args:
        names: All different tags.
        sentences: The tags of each sentence; read for IOB1 and IOB2 only.

    Returns:
        The scheme; "none" where a tag other than "O" has no prefix, or "O" is the only tag.

    Raises:
        ValueError: If the tags mix the prefixes of BIOES and BILOU.
    """
    parsed = [_TAG.fullmatch(name) for name in names if name != "O"]
    prefixes = {match[1] for match in parsed if match is not None}
    if not parsed or None in parsed:
        if prefixes:
            logger.warning(
                "Tags with and without a prefix of an entity are mixed: all are taken as they are, as with "
                "data.tag_scheme=none. If they mark entities, call the tag outside of them O."
            )
        return "none"
    if prefixes <= set(_PREFIXES["IOB2"]):
        contradicting_iob1 = contradicting_iob2 = 0
        for tags in sentences:
            contradicting_iob1 += len(find_contradictions(tags, "IOB1"))
            contradicting_iob2 += len(find_contradictions(tags, "IOB2"))
        return "IOB1" if contradicting_iob1 < contradicting_iob2 else "IOB2"
    if prefixes <= set(_PREFIXES["BIOES"]):
        return "BIOES"
    if prefixes <= set(_PREFIXES["BILOU"]):
        return "BILOU"
    raise ValueError(
        f"the prefixes of tags must be those of one scheme (BIOES: E-, S-; BILOU: L-, U-), got {', '.join(sorted(prefixes))}. "
        "Rename the tags, or set data.tag_scheme=none to take them as they are."
    )


def has_prefix_of(tag: str, scheme: TagScheme) -> bool:
    """Tell whether a tag is "O" or has one of the prefixes of a scheme."""
    match = _TAG.fullmatch(tag)
    return tag == "O" or (match is not None and match[1] in _PREFIXES[scheme])


def has_prefix(tag: str) -> bool:
    """Tell whether a tag has the prefix of any scheme."""
    return _TAG.fullmatch(tag) is not None


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """Find the entities of a sentence in any scheme, as leniently as conlleval.

    A tag for the inside or the end of an entity continues the entity before it where that has the same type and is not closed;
    elsewhere it begins one.

    Args:
        tags: The tags of the words, "O" or with a prefix.

    Returns:
        The entities, in order.

    Source:
        conlleval of the CoNLL-2000 shared task, as in seqeval.
    """
    entities: list[Entity] = []
    is_open = False
    for index, tag in enumerate(tags):
        role, name = _parse(tag)
        if role == "outside":
            is_open = False
            continue
        if is_open and role in ("inside", "end") and entities[-1].type == name:
            entities[-1] = entities[-1]._replace(last=index)
        else:
            entities.append(Entity(name, index, index))
        is_open = role in ("begin", "inside")
    return entities


def find_contradictions(tags: Sequence[str], scheme: TagScheme) -> list[int]:
    """Find the tags of a sentence that its scheme does not allow where they stand.

    Args:
        tags: The tags of the words, "O" or with a prefix.
        scheme: Their scheme, not "none".

    Returns:
        Indices of the tags, in order.
    """
    found = []
    previous_role, previous_name = "outside", ""
    for index, tag in enumerate(tags):
        role, name = _parse(tag)
        if scheme == "IOB1":
            is_wrong = role == "begin" and previous_name != name
        elif scheme == "IOB2":
            is_wrong = role == "inside" and previous_name != name
        else:
            is_open, continues = previous_role in ("begin", "inside"), role in ("inside", "end")
            is_wrong = is_open != continues or (continues and previous_name != name)
        if is_wrong or not has_prefix_of(tag, scheme):
            found.append(index)
        previous_role, previous_name = role, name
    if scheme in ("BIOES", "BILOU") and previous_role in ("begin", "inside"):
        found.append(len(tags) - 1)  # an entity without its end
    return sorted(set(found))


def convert_to_iob2(tags: Sequence[str], kept: Sequence[bool] | None = None) -> list[str]:
    """Mark the entities of a sentence in IOB2: "B-" at the first word of each, "I-" at the others.

    Args:
        tags: The tags of the words, "O" or with a prefix.
        kept: Whether each word is kept; `None` for all. An entity begins at its first word that is kept; a word that is not
            kept and lies outside of all entities ends none.

    Returns:
        The tags of the words that are kept.
    """
    kept = [True] * len(tags) if kept is None else kept
    marks = [index for index, tag in enumerate(tags) if kept[index] or tag != "O"]
    converted = ["O"] * len(tags)
    for name, first, last in find_entities([tags[index] for index in marks]):
        prefix = "B"
        for index in marks[first : last + 1]:
            if kept[index]:
                converted[index] = f"{prefix}-{name}"
                prefix = "I"
    return list(compress(converted, kept))


def iob2_labels(names: Sequence[str]) -> list[str]:
    """Name the labels of a model for tags of any scheme.

    A word of several tokens needs "I-X" even where no tag of the data is one, and what lies between two words needs "O".

    Args:
        names: All different tags; those without a prefix have no label.

    Returns:
        "B-X" and "I-X" for each type, and "O": first those that the tags become, in their order, then those that lack.

    Raises:
        ValueError: If an entity has the type "O".
    """
    labels: dict[str, None] = {}
    for role, name in (_parse(tag) for tag in names if tag == "O" or has_prefix(tag)):
        if name == "O":
            raise ValueError(
                "the type of an entity must not be 'O', which pipelines take for no entity, got a tag such as 'B-O'. Rename "
                "the type, or set data.tag_scheme=none to take the tags as they are."
            )
        labels["O" if role == "outside" else f"B-{name}" if role in ("begin", "single") else f"I-{name}"] = None
    for label in list(labels):
        if label != "O":
            labels |= dict.fromkeys((f"B-{label[2:]}", f"I-{label[2:]}"))
    return list(labels | {"O": None})


def _parse(tag: str) -> tuple[str, str]:
    """Split a tag into what its word is to an entity, and the type of that."""
    if tag == "O":
        return "outside", ""
    match = _TAG.fullmatch(tag)
    if match is None:
        raise ValueError(f"a tag must be O or a prefix, a hyphen and a type, such as B-PER, got {tag!r}.")
    return _ROLES[match[1]], match[2]
