"""A pronouncing dictionary, such as CMUdict -> words with all pronunciations that are listed for them."""

import re
import unicodedata
from pathlib import Path

from datasets import Dataset, DatasetDict, DatasetInfo, Features, List, Value

from hf_maskattn.data.cldr import hashed_splits
from hf_maskattn.data.table_file import TableFile, check_utf8

DICTIONARY_ENDING = ".dict"
"""The ending of the files that can be read."""

_COMMENT = re.compile(r"^(;;;|##).*|\s#.*")
_VARIANT = re.compile(r"(?<=.)\(\d+\)$")
_STRESSED_VOWEL = re.compile(r"(?<!\S)(A[AEHOWY]|E[HRY]|I[HY]|O[WY]|U[HW])[012](?!\S)")
_FEATURES = Features({"source": Value("string"), "target": Value("string"), "references": List(Value("string"))})


def load_pronunciations(path: str | Path) -> DatasetDict:
    """Read a pronouncing dictionary: a word, white space and its phonemes in each line.

    Lines of one word, and of its variants such as `read(2)`, become one row. A comment starts with `;;;`, or with a
    `#` after white space. Words are brought into Unicode NFC and lower case; the stress digits of ARPAbet vowels
    (`AH0`) are left out, and no other sign. Each word is put into a split by its own SHA-256.

    Args:
        path: A `.dict` file in UTF-8, such as `cmudict.dict`.

    Returns:
        Splits `train`, `validation` and `test` (about 80, 10 and 10 percent of the words; a split that no word falls
        into is absent) with the columns `source` (letters apart by spaces, such as `"r e a d"`), `target` (the first
        pronunciation of the word, such as `"R EH D"`) and `references` (all different ones, in the order of the file).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Another ending, no UTF-8, a line without phonemes, or no word at all; the message names the line.

    Source:
        The CMU Pronouncing Dictionary, https://github.com/cmusphinx/cmudict
    """
    path = Path(path)
    if path.suffix.lower() != DICTIONARY_ENDING:
        raise ValueError(
            f"{path}: the ending {path.suffix!r} is not {DICTIONARY_ENDING}; rename the file if it is a dictionary"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file (looked in {path.absolute().parent})")
    check_utf8(TableFile(str(path)))
    pronunciations_of: dict[str, list[str]] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = _read_entry(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if entry is not None:
                word, pronunciation = entry
                listed = pronunciations_of.setdefault(word, [])
                if pronunciation not in listed:
                    listed.append(pronunciation)
    if not pronunciations_of:
        raise ValueError(f"{path}: the file has no words; give a file with at least one")
    info = DatasetInfo(description=f"Words and their pronunciations, from {path.name}.", features=_FEATURES)
    splits = hashed_splits(pronunciations_of)
    return DatasetDict({name: _to_dataset(words, pronunciations_of, info) for name, words in splits.items() if words})


def _read_entry(line: str) -> tuple[str, str] | None:
    """Read the word and the pronunciation of a line; `None` where there is nothing but a comment."""
    line = _COMMENT.sub("", line)
    pieces = line.split()
    if not pieces:
        return None
    before_tab, tab, _ = line.partition("\t")
    if tab and len(before_tab.split()) > 1:
        raise ValueError(f"there is white space in the word {before_tab!r}; each line needs one word")
    if len(pieces) == 1:
        raise ValueError(f"the word {pieces[0]!r} has no phonemes; add them, or remove the line")
    word = unicodedata.normalize("NFC", _VARIANT.sub("", pieces[0]).lower())
    return word, _STRESSED_VOWEL.sub(r"\1", " ".join(pieces[1:]))


def _to_dataset(words: list[str], pronunciations_of: dict[str, list[str]], info: DatasetInfo) -> Dataset:
    references = [pronunciations_of[word] for word in words]
    columns = {
        "source": [" ".join(word) for word in words],
        "target": [listed[0] for listed in references],
        "references": references,
    }
    return Dataset.from_dict(columns, features=_FEATURES, info=info)
