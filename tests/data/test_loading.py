import json
import re
from types import SimpleNamespace

import datasets
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from huggingface_hub.utils import httpx

from hf_maskattn.data import loading
from hf_maskattn.data.loading import BUILT_IN, load_shards, load_splits


@pytest.fixture
def file(tmp_path):
    def write(name, rows=4, **changes):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": f"t{row}", "label": row % 2, **changes}) + "\n" for row in range(rows)))
        return path

    return write


@pytest.fixture
def hub(monkeypatch):
    """What the Hub answers, and what it was asked for; a dataset of a kind that `datasets` reads."""
    asked = []

    def answer(result):
        def load_dataset_builder(*arguments):
            def read(streaming):
                asked.append((*arguments, streaming))
                return result

            if isinstance(result, Exception):
                raise result
            return SimpleNamespace(
                config=datasets.BuilderConfig(),
                download_and_prepare=lambda: None,
                as_dataset=lambda: read(False),
                as_streaming_dataset=lambda: read(True),
            )

        monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
        return asked

    return answer


def _split(rows):
    return Dataset.from_dict({"text": [f"t{row}" for row in range(rows)]})


def test_a_built_in_corpus(monkeypatch, date_fields):
    monkeypatch.setitem(BUILT_IN, "cldr-date-fields", lambda: date_fields)
    splits = load_splits("cldr-date-fields", required_columns=["text", "tokens", "tags"])
    assert {name: split.num_rows for name, split in splits.items()} == {
        "train": 20_000,
        "validation": 2_000,
        "test": 2_000,
    }
    assert splits["train"].features == date_fields["train"].features


def test_the_built_in_corpora_by_name():
    assert {name: build.__name__ for name, build in BUILT_IN.items()} == {
        "cldr-languages": "build_cldr_languages",
        "cldr-date-fields": "build_cldr_date_fields",
        "cldr-dates": "build_cldr_dates",
    }


def test_local_files(file):
    splits = load_splits(train_file=file("a.jsonl"), validation_file=file("b.json", 2), test_file=file("c.jsonl", 1))
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 4, "validation": 2, "test": 1}


def test_splits_without_a_file_are_absent(file):
    assert list(load_splits(train_file=file("a.jsonl"))) == ["train"]
    assert list(load_splits(test_file=file("a.jsonl"), train_split=None)) == ["test"]


def test_splits_of_the_hub_are_renamed(hub):
    asked = hub(DatasetDict({"training": _split(3), "dev": _split(2), "unsupervised": _split(1)}))
    splits = load_splits("owner/name", subset="sub", train_split="training", validation_split="dev", test_split=None)
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 3, "validation": 2}
    assert asked == [("owner/name", "sub", False)]


def test_a_fraction_becomes_the_validation_split(file):
    path = file("a.jsonl", 20)
    splits = load_splits(train_file=path, validation_fraction=0.25, seed=1)
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 15, "validation": 5}
    texts = [*splits["train"]["text"], *splits["validation"]["text"]]
    assert sorted(texts) == sorted(f"t{row}" for row in range(20))
    again = load_splits(train_file=path, validation_fraction=0.25, seed=1)
    other = load_splits(train_file=path, validation_fraction=0.25, seed=2)
    assert list(again["validation"]) == list(splits["validation"]) != list(other["validation"])


def test_a_fraction_is_carved_where_the_hub_has_no_validation_split(hub):
    hub(DatasetDict({"train": _split(10), "test": _split(1)}))
    splits = load_splits("owner/name", validation_fraction=0.2)
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 8, "test": 1, "validation": 2}


def test_a_validation_split_is_used_as_it_is(hub):
    hub(DatasetDict({"train": _split(10), "validation": _split(3), "test": _split(1)}))
    assert load_splits("owner/name", validation_fraction=0.2)["train"].num_rows == 10
    carved = load_splits("owner/name", validation_split=None, validation_fraction=0.2)
    assert carved["validation"].num_rows == 2


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (1.0, "validation_fraction=1.0 must lie between 0 and 1"),
        (0.0, "validation_fraction=0.0 must lie between 0 and 1"),
        (0.01, "validation_fraction=0.01 of 4 training rows leaves 4 rows to train on and 0 to validate on"),
        (0.99, "validation_fraction=0.99 of 4 training rows leaves 0 rows to train on and 4 to validate on"),
    ],
)
def test_a_fraction_leaves_rows_on_both_sides(file, fraction, message):
    with pytest.raises(ValueError, match=message):
        load_splits(train_file=file("a.jsonl"), validation_fraction=fraction)


def test_a_fraction_needs_a_training_split(file):
    with pytest.raises(ValueError, match=r"validation_fraction=0\.5 needs a training split"):
        load_splits(test_file=file("a.jsonl"), train_split=None, validation_fraction=0.5)


def test_source_and_files_exclude_each_other(file):
    with pytest.raises(
        ValueError, match=r"no data given: set source .*cldr-languages or cldr-date-fields or cldr-dates.* or train_file"
    ):
        load_splits()
    with pytest.raises(ValueError, match=r"source='cldr-languages' and local files \(test_file\) are both given"):
        load_splits("cldr-languages", test_file=file("a.jsonl"))
    with pytest.raises(ValueError, match="train_file is missing; give it, or train_split=None"):
        load_splits(test_file=file("a.jsonl"))


def test_a_file_as_source_is_recognized():
    with pytest.raises(ValueError, match=r"source='data/a\.csv' looks like a local file; give it as train_file"):
        load_splits("data/a.csv")


def test_a_pronouncing_dictionary_brings_its_splits(tmp_path):
    path = tmp_path / "some.dict"
    path.write_text("".join(f"w{number} W\n" for number in range(40)))
    splits = load_splits(str(path), required_columns=["source", "target", "references"])
    assert list(splits) == ["train", "validation", "test"]
    assert sum(split.num_rows for split in splits.values()) == 40
    with pytest.raises(ValueError, match=r"subset='x': .*some\.dict has no subsets"):
        load_splits(str(path), subset="x")


def test_a_built_in_corpus_has_no_subsets():
    with pytest.raises(ValueError, match="subset='x': cldr-languages has no subsets"):
        load_splits("cldr-languages", subset="x")


def test_missing_and_empty_splits_are_named(hub):
    hub(DatasetDict({"train": _split(2), "tests": _split(0)}))
    message = (
        r"no split 'test' \(did you mean 'tests'\?\); the splits are train, tests\. Set test_split to one of them, "
        "or to None"
    )
    with pytest.raises(ValueError, match=message):
        load_splits("owner/name", validation_split=None)
    with pytest.raises(ValueError, match=r"the split 'tests' is empty; the splits are train \(2 rows\), tests \(0 rows\)"):
        load_splits("owner/name", validation_split=None, test_split="tests")
    with pytest.raises(ValueError, match="no split 'validation'; the splits are"):
        load_splits("owner/name", test_split=None)


def test_a_missing_column_is_named_with_the_nearest(file):
    message = r"the split 'train' has no column 'labels' \(did you mean 'label'\?\); its columns are text, label"
    with pytest.raises(ValueError, match=message):
        load_splits(train_file=file("a.jsonl"), required_columns=["text", "labels"])


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no network"),
        datasets.exceptions.DatasetNotFoundError("unknown id"),
        httpx.RemoteProtocolError("connection closed in the middle"),
    ],
)
def test_an_unreachable_hub_and_an_unknown_id_name_the_ways_out(hub, error):
    hub(error)
    message = (
        f"the dataset 'cldr_languages' could not be loaded from the Hub: {error}. Check the id and the network "
        "(did you mean 'cldr-languages'?), or use a built-in corpus (cldr-languages, cldr-date-fields, cldr-dates) or "
        "local files (train_file=...)"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        load_splits("cldr_languages")


def test_an_unknown_subset_is_named(hub):
    hub(ValueError("BuilderConfig 'x' not found. Available: ['a', 'b']"))
    message = r"the dataset 'owner/name' \(subset='x'\) could not be loaded: .*Available: \['a', 'b'\]"
    with pytest.raises(ValueError, match=message):
        load_splits("owner/name", subset="x")


def test_a_file_of_the_hub_that_cannot_be_read_says_why(hub):
    error = datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = ValueError("Invalid value in row 5")
    hub(error)
    with pytest.raises(
        ValueError, match=r"the dataset 'owner/name' .* could not be loaded: Invalid value in row 5\. Correct it"
    ):
        load_splits("owner/name")


def test_local_files_become_shards(file, tmp_path):
    for name in ("a-2.jsonl", "a-1.jsonl"):
        file(name)
    shards = load_shards(train_file=tmp_path / "a-*.jsonl", required_columns=["text"])
    assert [shards.name(shard) for shard in range(len(shards))] == [str(tmp_path / f"a-{number}.jsonl") for number in (1, 2)]


def test_a_split_of_the_hub_becomes_shards(hub):
    asked = hub(IterableDatasetDict({"training": _split(6).to_iterable_dataset(num_shards=3)}))
    assert len(load_shards("owner/name", subset="sub", train_split="training", required_columns=["text"])) == 3
    assert asked == [("owner/name", "sub", True)]
    with pytest.raises(ValueError, match=r"no split 'train' \(did you mean 'training'\?\)"):
        load_shards("owner/name")


def test_other_splits_are_read_without_the_stream(hub):
    def never():
        raise AssertionError("the training split was read")
        yield

    stream = IterableDataset.from_generator(never, features=_split(1).features)
    hub(IterableDatasetDict({"train": stream, "validation": _split(5).to_iterable_dataset()}))
    splits = load_splits("owner/name", train_split=None, test_split=None, streaming=True)
    assert list(splits) == ["validation"]
    assert splits["validation"]["text"][:] == _split(5)["text"][:]


def test_a_folder_of_parquet_files_is_streamed_like_a_dataset_of_the_hub(tmp_path):
    for number in range(2):
        _split(3).to_parquet(tmp_path / f"train-0000{number}-of-00002.parquet")
    _split(2).to_parquet(tmp_path / "validation-00000-of-00001.parquet")
    shards = load_shards(str(tmp_path))
    assert [shards.count(shard) for shard in range(len(shards))] == [3, 3]
    splits = load_splits(str(tmp_path), train_split=None, test_split=None, streaming=True)
    assert splits["validation"].num_rows == 2


def test_a_built_in_corpus_can_be_streamed(monkeypatch):
    monkeypatch.setitem(BUILT_IN, "cldr-date-fields", lambda: DatasetDict({"train": _split(3)}))
    assert load_shards("cldr-date-fields").first_rows().num_rows == 3


def test_shards_have_one_origin_and_all_columns(file):
    with pytest.raises(ValueError, match=r"source='cldr-languages' and local files \(train_file\) are both given"):
        load_shards("cldr-languages", train_file=file("a.jsonl"))
    with pytest.raises(ValueError, match=r"the split 'train' has no column 'labels' \(did you mean 'label'\?\)"):
        load_shards(train_file=file("a.jsonl"), required_columns=["labels"])


def test_the_hub_is_asked_through_datasets():
    with pytest.raises(FileNotFoundError, match="the dataset 'owner/name' could not be loaded from the Hub"):
        loading.load_splits("owner/name")
