import gzip
import io
import json
import re
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from huggingface_hub.utils import httpx

from hf_maskattn.data import cldr
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
    """Replaces the Hub by a dataset or an exception, and records the requests."""
    requests = []

    def respond(result):
        def load_dataset_builder(*arguments):
            def read(streaming):
                requests.append((*arguments, streaming))
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
        return requests

    return respond


def _split(rows):
    return Dataset.from_dict({"text": [f"t{row}" for row in range(rows)]})


@pytest.mark.parametrize("name", BUILT_IN)
def test_load_splits_built_in_corpora_by_name(monkeypatch, name):
    corpus = DatasetDict({"train": _split(3)})
    monkeypatch.setattr(cldr, f"build_{name.replace('-', '_')}", lambda: corpus)
    assert load_splits(name, validation_split=None, test_split=None)["train"] is corpus["train"]


def test_load_splits_of_local_files(file):
    splits = load_splits(train_file=file("a.jsonl"), validation_file=file("b.json", 2), test_file=file("c.jsonl", 1))
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 4, "validation": 2, "test": 1}


def test_load_splits_without_file_are_absent(file):
    assert list(load_splits(train_file=file("a.jsonl"))) == ["train"]
    assert list(load_splits(test_file=file("a.jsonl"), train_split=None)) == ["test"]


def test_load_splits_renames_splits_of_hub(hub):
    requests = hub(DatasetDict({"training": _split(3), "dev": _split(2), "unsupervised": _split(1)}))
    splits = load_splits("owner/name", subset="sub", train_split="training", validation_split="dev", test_split=None)
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 3, "validation": 2}
    assert requests == [("owner/name", "sub", False)]


def test_validation_fraction_splits_training_rows(file):
    path = file("a.jsonl", 20)
    splits = load_splits(train_file=path, validation_fraction=0.25, seed=1)
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 15, "validation": 5}
    texts = [*splits["train"]["text"], *splits["validation"]["text"]]
    assert sorted(texts) == sorted(f"t{row}" for row in range(20))
    again = load_splits(train_file=path, validation_fraction=0.25, seed=1)
    other = load_splits(train_file=path, validation_fraction=0.25, seed=2)
    assert list(again["validation"]) == list(splits["validation"]) != list(other["validation"])


def test_validation_fraction_without_validation_split_on_hub(hub):
    hub(DatasetDict({"train": _split(10), "test": _split(1)}))
    splits = load_splits("owner/name", validation_fraction=0.2)
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 8, "test": 1, "validation": 2}


def test_validation_fraction_is_ignored_with_validation_split(hub):
    hub(DatasetDict({"train": _split(10), "validation": _split(3), "test": _split(1)}))
    assert load_splits("owner/name", validation_fraction=0.2)["train"].num_rows == 10
    loaded = load_splits("owner/name", validation_split=None, validation_fraction=0.2)
    assert loaded["validation"].num_rows == 2


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (1.0, "validation_fraction must be between 0 and 1, got 1.0"),
        (0.0, "validation_fraction must be between 0 and 1, got 0.0"),
        (0.01, "validation_fraction=0.01 of 4 training rows must leave .*, got 4 for training and 0 for validation"),
        (0.99, "validation_fraction=0.99 of 4 training rows must leave .*, got 0 for training and 4 for validation"),
    ],
)
def test_validation_fraction_must_leave_rows(file, fraction, message):
    with pytest.raises(ValueError, match=message):
        load_splits(train_file=file("a.jsonl"), validation_fraction=fraction)


def test_validation_fraction_requires_training_split(file):
    with pytest.raises(ValueError, match=r"validation_fraction=0\.5 requires a training split"):
        load_splits(test_file=file("a.jsonl"), train_split=None, validation_fraction=0.5)


def test_load_splits_source_and_files_are_exclusive(file):
    message = r"source or train_file must be given\. Set source .*cldr-languages or cldr-date-fields or cldr-dates"
    with pytest.raises(ValueError, match=message):
        load_splits()
    with pytest.raises(ValueError, match="source='cldr-languages' and test_file are mutually exclusive"):
        load_splits("cldr-languages", test_file=file("a.jsonl"))
    with pytest.raises(ValueError, match=r"train_file is missing\. Set it, or train_split=None"):
        load_splits(test_file=file("a.jsonl"))


def test_load_splits_rejects_file_as_source():
    with pytest.raises(ValueError, match=r"source='data/a\.csv' must not be a file\. Set train_file instead"):
        load_splits("data/a.csv")


def test_load_splits_of_pronouncing_dictionary(tmp_path):
    path = tmp_path / "some.dict"
    path.write_text("".join(f"w{number} W\n" for number in range(40)))
    splits = load_splits(str(path), required_columns=["source", "target", "references"])
    assert list(splits) == ["train", "validation", "test"]
    assert sum(split.num_rows for split in splits.values()) == 40
    with pytest.raises(ValueError, match=r"subset='x' is not supported with .*some\.dict"):
        load_splits(str(path), subset="x")


def test_load_splits_rejects_subset_of_built_in_corpus():
    with pytest.raises(ValueError, match="subset='x' is not supported with cldr-languages"):
        load_splits("cldr-languages", subset="x")


def test_load_splits_rejects_missing_and_empty_splits(hub):
    hub(DatasetDict({"train": _split(2), "tests": _split(0)}))
    message = (
        r"test_split must be one of train, tests, got 'test' \(did you mean 'tests'\?\)\. Set it to one of them, or to None"
    )
    with pytest.raises(ValueError, match=message):
        load_splits("owner/name", validation_split=None)
    with pytest.raises(ValueError, match=r"the split 'tests' must not be empty\. .* train \(2 rows\), tests \(0 rows\)"):
        load_splits("owner/name", validation_split=None, test_split="tests")
    with pytest.raises(ValueError, match="validation_split must be one of train, tests, got 'validation'"):
        load_splits("owner/name", test_split=None)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no network"),
        datasets.exceptions.DatasetNotFoundError("unknown id"),
        httpx.RemoteProtocolError("connection closed in the middle"),
    ],
)
def test_load_splits_without_hub_suggests_alternatives(hub, error):
    hub(error)
    message = (
        f"the dataset 'cldr_languages' could not be loaded from the Hub: {error}. Check the id and the network "
        "(did you mean 'cldr-languages'?), or use a built-in corpus (cldr-languages, cldr-date-fields, cldr-dates) or "
        "local files (train_file=...)."
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        load_splits("cldr_languages")


def test_load_splits_names_unknown_subset(hub):
    hub(ValueError("BuilderConfig 'x' not found. Available: ['a', 'b']"))
    message = r"the dataset 'owner/name' \(subset='x'\) could not be loaded: .*Available: \['a', 'b'\]"
    with pytest.raises(ValueError, match=message):
        load_splits("owner/name", subset="x")


def test_load_splits_explains_unreadable_file_of_hub(hub):
    error = datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = ValueError("Invalid value in row 5")
    hub(error)
    message = r"the dataset 'owner/name' .* could not be loaded: Invalid value in row 5\. Correct it"
    with pytest.raises(ValueError, match=message):
        load_splits("owner/name")


def test_load_shards_of_local_files(file, tmp_path):
    for name in ("a-2.jsonl", "a-1.jsonl"):
        file(name)
    shards = load_shards(train_file=tmp_path / "a-*.jsonl", required_columns=["text"])
    assert [shards.name(shard) for shard in range(len(shards))] == [str(tmp_path / f"a-{number}.jsonl") for number in (1, 2)]


def test_load_shards_of_hub(hub):
    requests = hub(IterableDatasetDict({"training": _split(6).to_iterable_dataset(num_shards=3)}))
    assert len(load_shards("owner/name", subset="sub", train_split="training", required_columns=["text"])) == 3
    assert requests == [("owner/name", "sub", True)]
    with pytest.raises(ValueError, match=r"train_split must be .*, got 'train' \(did you mean 'training'\?\)"):
        load_shards("owner/name")


def test_load_splits_streaming_skips_training_split(hub):
    def raise_error():
        raise AssertionError("the training split was read")
        yield

    stream = IterableDataset.from_generator(raise_error, features=_split(1).features)
    hub(IterableDatasetDict({"train": stream, "validation": _split(5).to_iterable_dataset()}))
    splits = load_splits("owner/name", train_split=None, test_split=None, streaming=True)
    assert list(splits) == ["validation"]
    assert splits["validation"]["text"][:] == _split(5)["text"][:]


def test_load_shards_of_parquet_folder(tmp_path):
    for number in range(2):
        _split(3).to_parquet(tmp_path / f"train-0000{number}-of-00002.parquet")
    _split(2).to_parquet(tmp_path / "validation-00000-of-00001.parquet")
    shards = load_shards(str(tmp_path))
    assert [shards.count(shard) for shard in range(len(shards))] == [3, 3]
    splits = load_splits(str(tmp_path), train_split=None, test_split=None, streaming=True)
    assert splits["validation"].num_rows == 2


def test_load_shards_of_built_in_corpus(monkeypatch):
    monkeypatch.setattr(cldr, "build_cldr_date_fields", lambda: DatasetDict({"train": _split(3)}))
    assert load_shards("cldr-date-fields").first_rows().num_rows == 3


def test_load_shards_checks_arguments_and_columns(file):
    with pytest.raises(ValueError, match="source='cldr-languages' and train_file are mutually exclusive"):
        load_shards("cldr-languages", train_file=file("a.jsonl"))
    with pytest.raises(ValueError, match=r"the split 'train' has no column 'labels' \(did you mean 'label'\?\)"):
        load_shards(train_file=file("a.jsonl"), required_columns=["labels"])


def test_load_splits_of_unreachable_hub():
    with pytest.raises(FileNotFoundError, match="the dataset 'owner/name' could not be loaded from the Hub"):
        load_splits("owner/name")


@pytest.mark.parametrize(
    ("name", "separator", "suggestion"),
    [
        ("a.csv", ";", "';'"),
        ("a.csv", "\t", r"'\t'"),
        ("a.csv", "|", "'\"|\"'"),
        ("a.tsv", ",", "','"),
        ("a.csv.gz", ";", "';'"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_load_single_column_header_suggests_separator(tmp_path, name, separator, suggestion, streaming):
    path = tmp_path / name
    content = f"text{separator}label\na{separator}b\n".encode()
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    load = load_shards if streaming else load_splits
    with pytest.raises(ValueError, match=re.escape(f"Set data.csv_separator={suggestion}")):
        load(train_file=path, required_columns=["text", "label"])
    rows = load(train_file=path, required_columns=["text", "label"], csv_separator=separator)
    assert (rows.first_rows() if streaming else rows["train"])[:] == {"text": ["a"], "label": ["b"]}


CELLS = [*("NA", "None", "null", "nan", "01", "1", "1984", "True", "", "1.0", "2024-03-01", "12:30:00", "2020-01-01T00:00:00Z")]


def load_variants(folder, name, content):
    """Load a file as a local file, in a folder, and as streams of both."""
    folder.mkdir(parents=True)
    (folder / f"train{name}").write_bytes(content)
    settings = {"validation_split": None, "test_split": None}
    yield load_splits(train_file=folder / f"train{name}")["train"]
    yield load_splits(str(folder), **settings)["train"]
    yield load_shards(train_file=folder / f"train{name}").first_rows()
    yield load_shards(str(folder)).first_rows()
    yield load_splits(str(folder), **settings, streaming=True)["train"]


@pytest.mark.parametrize("name", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".csv.gz", ".jsonl.gz"])
def test_load_variants_return_the_same_cells(tmp_path, name):
    rows = [{"text": cell, "more": "x"} for cell in CELLS]
    if "json" not in name:
        separator = "\t" if name == ".tsv" else ","
        content = separator.join(rows[0]) + "\n" + "".join(separator.join(row.values()) + "\n" for row in rows)
    else:
        content = json.dumps(rows) if name == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    content = content.encode()
    for split in load_variants(tmp_path / "data 1", name, gzip.compress(content) if name.endswith("gz") else content):
        assert list(split) == rows


@pytest.mark.parametrize("column", [pa.array(["x", "y"]).dictionary_encode(), pa.array(["x", "y"], pa.string_view())])
def test_load_variants_return_the_same_parquet_strings(tmp_path, column):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": column}), buffer)
    for split in load_variants(tmp_path / "data", ".parquet", buffer.getvalue()):
        assert split["text"][:] == ["x", "y"]
        assert split.features["text"] == datasets.Value("string")


@pytest.mark.parametrize(
    ("suffix", "rows"), [("csv", "text,label\na,pos\nb,1\n"), ("jsonl", '{"text":"a","label":1}\n{"text":"b","label":1}\n')]
)
def test_load_folder_card_with_class_labels(tmp_path, suffix, rows):
    (tmp_path / f"train.{suffix}").write_text(rows)
    names = "          names:\n            '0': neg\n            '1': pos\n"
    features = f"  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n{names[2:]}"
    (tmp_path / "README.md").write_text(f"---\ndataset_info:\n  features:\n{features}---\n")
    split = load_splits(str(tmp_path), validation_split=None, test_split=None)["train"]
    for rows in (split, load_shards(str(tmp_path)).first_rows()):
        assert rows.features["label"] == datasets.ClassLabel(names=["neg", "pos"])
        assert rows["label"][:] == [1, 1]


def test_load_folder_card_with_separator(tmp_path):
    (tmp_path / "train.csv").write_text("text;label\nNA;01\n")
    card = '---\nconfigs:\n- config_name: default\n  data_files: train.csv\n  sep: ";"\n---\n'
    (tmp_path / "README.md").write_text(card)
    splits = load_splits(str(tmp_path), validation_split=None, test_split=None)
    assert list(splits["train"]) == [{"text": "NA", "label": "01"}]


def test_load_splits_rejects_folder_of_save_to_disk(tmp_path):
    _split(2).save_to_disk(tmp_path / "saved")
    DatasetDict({"train": _split(2)}).save_to_disk(tmp_path / "splits")
    for name in ("saved", "splits"):
        with pytest.raises(ValueError, match=r"must not be a folder of save_to_disk, .* to_parquet or to_json"):
            load_splits(str(tmp_path / name))


def test_validation_fraction_matches_datasets(file):
    path = file("a.jsonl", 50)
    splits = load_splits(train_file=path, validation_fraction=0.2, seed=3, label_columns=["label"])
    expected = load_splits(train_file=path)["train"].train_test_split(test_size=10, seed=3)
    assert list(splits["train"]) == list(expected["train"])
    assert list(splits["validation"]) == list(expected["test"])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("is_list", [False, True])
def test_validation_fraction_keeps_rare_labels_in_training(tmp_path, seed, is_list):
    labels = ["rare", "rarer", "b", "b", *"aaaaaaaaaaaaaa"]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"label": [label, "a"] if is_list else label}) + "\n" for label in labels))
    splits = load_splits(train_file=path, validation_fraction=0.4, seed=seed, label_columns=["label"])
    trained = {str(label) for label in splits["train"]["label"]}
    assert trained == {str([label, "a"] if is_list else label) for label in labels}
    assert splits["train"].num_rows + splits["validation"].num_rows == len(labels)
    lines = path.read_text().splitlines()
    for name in ("train", "validation"):
        for row, value in enumerate(splits[name]):
            line = int(str(splits.locations[name][row]).rpartition(" ")[2])
            assert json.loads(lines[line - 1]) == value


def test_validation_fraction_rejects_unique_labels(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"label": "{row}"}}\n' for row in range(10)))
    with pytest.raises(ValueError, match=r"validation_fraction=0\.2 leaves no rows for validation: each of the 2 chosen rows"):
        load_splits(train_file=path, validation_fraction=0.2, label_columns=["label"])


def test_load_splits_rejects_invalid_folders(tmp_path):
    (tmp_path / "data[1]").mkdir()
    (tmp_path / "data[1]" / "train.csv").write_text("text\na\n")
    with pytest.raises(ValueError, match=r"source='.*data\[1\]' must be a folder without the pattern characters \*, \? and \["):
        load_splits(str(tmp_path / "data[1]"))
    (tmp_path / "empty").mkdir()
    message = r"the folder '.*empty' could not be read: .*any data files\. Correct it, or use"
    with pytest.raises(FileNotFoundError, match=message):
        load_splits(str(tmp_path / "empty"))
