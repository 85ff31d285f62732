"""Tag schemes: detection, the entities of a sentence, and conversion to IOB2, which pipelines require."""

import logging
import re
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Literal, NamedTuple

TagScheme = Literal["IOB1", "IOB2", "BIOES", "BILOU", "none"]
"""How tags mark entities; "none" for tags that do not, such as parts of speech."""

logger = logging.getLogger(__name__)

_SPAN_PREFIXES = ("B-", "I-", "E-", "S-", "L-", "U-")
_TAG = re.compile(r"([BIMELSUW])-(.+)", re.DOTALL)
_ROLES = {"B": "begin", "I": "inside", "M": "inside", "E": "end", "L": "end", "S": "single", "U": "single", "W": "single"}
_PREFIXES: dict[TagScheme, str] = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIMESW", "BILOU": "BIMLU"}


class Entity(NamedTuple):
    """An entity of a sentence.

    Args:
        type: Entity type, such as "PER".
        first: Index of its first word.
        last: Index of its last word.
    """

    type: str
    first: int
    last: int


def detect_tag_scheme(names: Iterable[str], sentences: Iterable[Sequence[str]]) -> TagScheme:
    """Detect the scheme of tags by their prefixes. IOB1 and IOB2 have the same ones; the one with fewer violations is chosen.

    Args:
        names: All different tags.
        sentences: Tags of each sentence, which are used to distinguish IOB1 and IOB2.

    Returns:
        The scheme; "none" if a tag other than "O" has no prefix, or "O" is the only tag.

    Raises:
        ValueError: The tags mix the prefixes of BIOES and BILOU.
    """
    parsed = {name: _TAG.fullmatch(name) for name in names if name != "O"}
    prefixes = {match[1] for match in parsed.values() if match is not None}
    others = sorted(name for name, match in parsed.items() if match is None)
    if not parsed or others:
        if prefixes:
            shown = f"{', '.join(map(repr, others[:3]))}{', ...' if len(others) > 3 else ''}"
            logger.warning(
                "Only some tags have the prefix of an entity, so no tags are converted, as with data.tag_scheme=none, and "
                f"words are scored instead of entities. Without a prefix: {shown}. If tags mark entities, correct them, or "
                "name the tag outside of entities O."
            )
        return "none"
    if prefixes <= set(_PREFIXES["IOB2"]):
        iob1_violations, iob2_violations = 0, 0
        for tags in sentences:
            iob1_violations += len(list_violations(tags, "IOB1"))
            iob2_violations += len(list_violations(tags, "IOB2"))
        return "IOB1" if iob1_violations < iob2_violations else "IOB2"
    if prefixes <= set(_PREFIXES["BIOES"]):
        return "BIOES"
    if prefixes <= set(_PREFIXES["BILOU"]):
        return "BILOU"
    raise ValueError(
        f"the prefixes of tags must belong to one scheme (BIOES: E-, S-; BILOU: L-, U-), got {', '.join(sorted(prefixes))}. "
        "Rename the tags, or set data.tag_scheme=none to keep them as they are."
    )


def has_scheme_prefix(tag: str, scheme: TagScheme) -> bool:
    """Return whether a tag is "O" or has a prefix of a scheme."""
    match = _TAG.fullmatch(tag)
    return tag == "O" or (match is not None and match[1] in _PREFIXES[scheme])


def has_prefix(tag: str) -> bool:
    """Return whether a tag has a prefix of any scheme."""
    return _TAG.fullmatch(tag) is not None


def are_span_tags(names: Sequence[str], tag_scheme: str | None = None) -> bool:
    """Return whether tags mark spans, such as "B-DATE", "I-DATE" and "O", unlike parts of speech.

    Args:
        names: All tags.
        tag_scheme: `tag_scheme` of the model configuration, if it has one.
    """
    if tag_scheme == "none":
        return False
    return any(name != "O" for name in names) and all(name == "O" or name.startswith(_SPAN_PREFIXES) for name in names)


def continuing_tag(tag: str) -> str:
    """Return the tag of the next word in the same entity, in IOB2."""
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag


def extract_entities(tags: Sequence[str]) -> list[Entity]:
    """Extract the entities of a sentence, in order, from tags in any scheme, as leniently as conlleval.

    A tag for the inside or the end of an entity continues an open entity of the same type; otherwise it begins one.

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


def list_violations(tags: Sequence[str], scheme: TagScheme) -> list[int]:
    """List the indices of the tags of a sentence that violate a scheme other than "none"."""
    violations = []
    previous_role, previous_name = "outside", ""
    for index, tag in enumerate(tags):
        role, name = _parse(tag)
        if scheme == "IOB1":
            is_violation = role == "begin" and previous_name != name
        elif scheme == "IOB2":
            is_violation = role == "inside" and previous_name != name
        else:
            is_open = previous_role in ("begin", "inside")
            continues = role in ("inside", "end")
            is_violation = is_open != continues or (continues and previous_name != name)
        if is_violation or not has_scheme_prefix(tag, scheme):
            violations.append(index)
        previous_role, previous_name = role, name
    if scheme in ("BIOES", "BILOU") and previous_role in ("begin", "inside"):
        violations.append(len(tags) - 1)  # an entity without end
    return sorted(set(violations))


def convert_to_iob2(tags: Sequence[str], kept: Sequence[bool] | None = None) -> list[str]:
    """Convert tags of any scheme to IOB2: "B-" at the first word of each entity, "I-" at its other words.

    Args:
        tags: Tags of the words, "O" or with a prefix.
        kept: Whether each word is kept; `None` for all. An entity begins at its first kept word. A dropped word outside of
            entities does not end an entity.

    Returns:
        Tags of the kept words.
    """
    kept = [True] * len(tags) if kept is None else kept
    relevant = [index for index, tag in enumerate(tags) if kept[index] or tag != "O"]
    converted = ["O"] * len(tags)
    for name, first, last in extract_entities([tags[index] for index in relevant]):
        prefix = "B"
        for index in relevant[first : last + 1]:
            if kept[index]:
                converted[index] = f"{prefix}-{name}"
                prefix = "I"
    return list(compress(converted, kept))


def iob2_labels(names: Sequence[str]) -> list[str]:
    """Return the IOB2 labels of a model for tags of any scheme.

    "I-X" is needed for words of several tokens even if no tag of the data is "I-X", and "O" for tokens between words.

    Args:
        names: All different tags; tags without a prefix have no label.

    Returns:
        "B-X" and "I-X" for each type, and "O": first the converted tags, in their order, then the missing labels.

    Raises:
        ValueError: An entity has the type "O".
    """
    labels: dict[str, None] = {}
    for role, name in (_parse(tag) for tag in names if tag == "O" or has_prefix(tag)):
        if name == "O":
            raise ValueError(
                "entity types must not be 'O', which means no entity in pipelines, got a tag such as 'B-O'. Rename the type, "
                "or set data.tag_scheme=none to keep the tags as they are."
            )
        labels["O" if role == "outside" else f"B-{name}" if role in ("begin", "single") else f"I-{name}"] = None
    for label in list(labels):
        if label != "O":
            labels |= dict.fromkeys((f"B-{label[2:]}", f"I-{label[2:]}"))
    return list(labels | {"O": None})


def _parse(tag: str) -> tuple[str, str]:
    """Split a tag into the role of its word in an entity, and the type of the entity."""
    if tag == "O":
        return "outside", ""
    match = _TAG.fullmatch(tag)
    if match is None:
        raise ValueError(f"a tag must be O or a prefix, a hyphen and a type, such as B-PER, got {tag!r}.")
    return _ROLES[match[1]], match[2]
