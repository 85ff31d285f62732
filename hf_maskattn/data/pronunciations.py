"""Loads a pronouncing dictionary, such as CMUdict, as a dataset of words and their pronunciations."""

import re
import unicodedata
from pathlib import Path

from datasets import Dataset, DatasetDict, DatasetInfo, Features, List, Value

from hf_maskattn.data.cldr import split_by_hash
from hf_maskattn.data.files import DICTIONARY_SUFFIX, TableFile, check_utf8

_COMMENT = re.compile(r"^(;;;|##).*|\s#.*")
_VARIANT = re.compile(r"(?<=.)\(\d+\)$")
_STRESSED_VOWEL = re.compile(r"(?<!\S)(A[AEHOWY]|E[HRY]|I[HY]|O[WY]|U[HW])[012](?!\S)")
_FEATURES = Features({"source": Value("string"), "target": Value("string"), "references": List(Value("string"))})


def load_pronunciations(path: str | Path) -> DatasetDict:
    """Load a pronouncing dictionary: one word, white space and its phonemes per line.

    Lines of the same word, and of its variants such as `read(2)`, are merged into one row. A comment starts with `;;;`, or
    with a `#` after white space. Words are normalized to Unicode NFC and lower case; the stress digits of ARPAbet vowels
    (`AH0`) are removed. The split of a word is determined by its SHA-256.

    Args:
        path: A `.dict` file in UTF-8, such as `cmudict.dict`.

    Returns:
        Splits `train`, `validation` and `test` (about 80, 10 and 10 percent of the words; empty splits are absent) with the
        columns `source` (letters separated by spaces, such as `"r e a d"`), `target` (the first pronunciation of the word,
        such as `"R EH D"`) and `references` (all different pronunciations, in the order of the file).

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: Another suffix, invalid UTF-8, a line without phonemes, or no words; the message contains the line.

    Source:
        The CMU Pronouncing Dictionary, https://github.com/cmusphinx/cmudict
    """
    path = Path(path)
    if path.suffix.lower() != DICTIONARY_SUFFIX:
        raise ValueError(f"{path}: the suffix must be {DICTIONARY_SUFFIX}, got {path.suffix!r}. Rename the file.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file in {path.absolute().parent}. Correct the path.")
    check_utf8(TableFile(str(path)))
    pronunciations_of: dict[str, list[str]] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = _parse_line(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if entry is not None:
                word, pronunciation = entry
                pronunciations = pronunciations_of.setdefault(word, [])
                if pronunciation not in pronunciations:
                    pronunciations.append(pronunciation)
    if not pronunciations_of:
        raise ValueError(f"{path}: the file has no words. Add at least one.")
    info = DatasetInfo(description=f"Words and their pronunciations, from {path.name}.", features=_FEATURES)
    splits = split_by_hash(pronunciations_of)
    return DatasetDict({name: _build_split(words, pronunciations_of, info) for name, words in splits.items() if words})


def _parse_line(line: str) -> tuple[str, str] | None:
    """Parse the word and the pronunciation of a line; `None` for blank lines and comments."""
    line = _COMMENT.sub("", line)
    pieces = line.split()
    if not pieces:
        return None
    before_tab, tab, _ = line.partition("\t")
    if tab and len(before_tab.split()) > 1:
        raise ValueError(f"the word must not contain white space, got {before_tab!r}. Use one word per line.")
    if len(pieces) == 1:
        raise ValueError(f"the word {pieces[0]!r} has no phonemes. Add them, or remove the line.")
    word = unicodedata.normalize("NFC", _VARIANT.sub("", pieces[0]).lower())
    return word, _STRESSED_VOWEL.sub(r"\1", " ".join(pieces[1:]))


def _build_split(words: list[str], pronunciations_of: dict[str, list[str]], info: DatasetInfo) -> Dataset:
    references = [pronunciations_of[word] for word in words]
    columns = {
        "source": [" ".join(word) for word in words],
        "target": [pronunciations[0] for pronunciations in references],
        "references": references,
    }
    return Dataset.from_dict(columns, features=_FEATURES, info=info)
