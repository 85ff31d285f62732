import gzip
import io
import json
import re
import sys
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from huggingface_hub.utils import httpx

from hf_maskattn.data import loading
from hf_maskattn.data.loading import BUILT_IN, lines_of_file, lines_of_stream, load_shards, load_splits
from hf_maskattn.data.progress import bars_for_many_bytes, bars_for_many_rows


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
    message = r"the split 'train' has no column 'labels' \(did you mean 'label'\?\); its columns are text, label$"
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


def test_all_missing_columns_are_named_with_their_keys(file):
    message = (
        "the split 'train' has no column 'labels' (did you mean 'label'?) and no column 'words'; its columns are text, label. "
        "Name the columns that it has: data.label_column=..., data.tokens_column=..."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_splits(
            train_file=file("a.jsonl"),
            required_columns={"labels": "data.label_column", "words": "data.tokens_column", "text": "data.text_column"},
        )


@pytest.mark.parametrize(
    ("name", "separator", "told"),
    [
        ("a.csv", ";", "';'"),
        ("a.csv", "\t", r"'\t'"),
        ("a.csv", "|", "'\"|\"'"),
        ("a.tsv", ",", "','"),
        ("a.csv.gz", ";", "';'"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_header_that_is_one_cell_tells_how_to_name_the_separator(tmp_path, name, separator, told, stream):
    path = tmp_path / name
    content = f"text{separator}label\na{separator}b\n".encode()
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    load = load_shards if stream else load_splits
    with pytest.raises(ValueError, match=re.escape(f"Set data.csv_separator={told}")):
        load(train_file=path, required_columns=["text", "label"])
    rows = load(train_file=path, required_columns=["text", "label"], csv_separator=separator)
    assert (rows.first_rows() if stream else rows["train"])[:] == {"text": ["a"], "label": ["b"]}


CELLS = ["NA", "None", "null", "nan", "01", "1", "1984", "2024-03-01", "True", "", "1.0"]


def doors(folder, name, content):
    """Read a file as a local file, in a folder, and as streams of both."""
    folder.mkdir(parents=True)
    (folder / f"train{name}").write_bytes(content)
    settings = {"validation_split": None, "test_split": None}
    yield load_splits(train_file=folder / f"train{name}")["train"]
    yield load_splits(str(folder), **settings)["train"]
    yield load_shards(train_file=folder / f"train{name}").first_rows()
    yield load_shards(str(folder)).first_rows()
    yield load_splits(str(folder), **settings, streaming=True)["train"]


@pytest.mark.parametrize("name", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".csv.gz", ".jsonl.gz"])
def test_a_cell_is_the_same_through_every_door(tmp_path, name):
    rows = [{"text": cell, "more": "x"} for cell in CELLS]
    if "json" not in name:
        separator = "\t" if name == ".tsv" else ","
        content = separator.join(rows[0]) + "\n" + "".join(separator.join(row.values()) + "\n" for row in rows)
    else:
        content = json.dumps(rows) if name == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    content = content.encode()
    for split in doors(tmp_path / "data 1", name, gzip.compress(content) if name.endswith("gz") else content):
        assert list(split) == rows


@pytest.mark.parametrize("column", [pa.array(["x", "y"]).dictionary_encode(), pa.array(["x", "y"], pa.string_view())])
def test_strings_of_parquet_are_the_same_through_every_door(tmp_path, column):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": column}), buffer)
    for split in doors(tmp_path / "data", ".parquet", buffer.getvalue()):
        assert split["text"][:] == ["x", "y"]
        assert split.features["text"] == datasets.Value("string")


@pytest.mark.parametrize(
    ("ending", "rows"), [("csv", "text,label\na,pos\nb,1\n"), ("jsonl", '{"text":"a","label":"pos"}\n{"text":"b","label":1}\n')]
)
def test_the_card_of_a_folder_names_class_labels(tmp_path, ending, rows):
    (tmp_path / f"train.{ending}").write_text(rows.replace("pos", "pos") if ending == "csv" else rows.replace('"pos"', "1"))
    names = "          names:\n            '0': neg\n            '1': pos\n"
    features = f"  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n{names[2:]}"
    (tmp_path / "README.md").write_text(f"---\ndataset_info:\n  features:\n{features}---\n")
    splits = load_splits(str(tmp_path), validation_split=None, test_split=None)
    assert splits["train"].features["label"] == datasets.ClassLabel(names=["neg", "pos"])
    assert splits["train"]["label"][:] == [1, 1]
    shards = load_shards(str(tmp_path))
    assert shards.first_rows().features["label"] == datasets.ClassLabel(names=["neg", "pos"])
    assert shards.first_rows()["label"][:] == [1, 1]


def test_the_card_of_a_folder_names_its_separator(tmp_path):
    (tmp_path / "train.csv").write_text("text;label\nNA;01\n")
    card = '---\nconfigs:\n- config_name: default\n  data_files: train.csv\n  sep: ";"\n---\n'
    (tmp_path / "README.md").write_text(card)
    splits = load_splits(str(tmp_path), validation_split=None, test_split=None)
    assert list(splits["train"]) == [{"text": "NA", "label": "01"}]


def test_what_save_to_disk_wrote_is_refused_with_the_way_out(tmp_path):
    _split(2).save_to_disk(tmp_path / "saved")
    DatasetDict({"train": _split(2)}).save_to_disk(tmp_path / "splits")
    for name in ("saved", "splits"):
        with pytest.raises(ValueError, match=r"was written by save_to_disk, .* to_parquet or to_json"):
            load_splits(str(tmp_path / name))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["pos", 0],
            r"line 2: the column 'label' of the split 'train' must hold values of one type, .*, got 0, a number, "
            r"where .*line 1 has 'pos', a text",
        ),
        ([["O"], ["O", 1]], r"line 2: .* got 1, a number in a list, where .*line 1 has 'O', a text in a list"),
        (["pos", {"a": 1}], r"line 2: .* got {'a': 1}, an object"),
        ([None, {"a": 1}], r"line 2: .* got {'a': 1}, an object"),
        ([True, 1], r"line 2: .* got 1, a number, where .*line 1 has True, true or false"),
        (["a", ["a"]], r"line 2: .* got 'a', a text in a list, where .*line 1 has 'a', a text"),
    ],
)
def test_mixed_types_in_a_column_that_is_needed_are_told(tmp_path, values, message, stream):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"label": value, "other": values[:row]}) + "\n" for row, value in enumerate(values)))
    load = load_shards if stream else load_splits
    load(train_file=path, required_columns=["other"])
    with pytest.raises(ValueError, match=message):
        load(train_file=path, required_columns=["label"])


def test_the_draw_of_a_fraction_is_that_of_datasets(file):
    path = file("a.jsonl", 50)
    splits = load_splits(train_file=path, validation_fraction=0.2, seed=3, label_column="label")
    expected = load_splits(train_file=path)["train"].train_test_split(test_size=10, seed=3)
    assert list(splits["train"]) == list(expected["train"])
    assert list(splits["validation"]) == list(expected["test"])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("is_list", [False, True])
def test_rare_labels_stay_in_training(tmp_path, seed, is_list):
    labels = ["rare", "rarer", "b", "b", *"aaaaaaaaaaaaaa"]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"label": [label, "a"] if is_list else label}) + "\n" for label in labels))
    splits = load_splits(train_file=path, validation_fraction=0.4, seed=seed, label_column="label")
    trained = {str(label) for label in splits["train"]["label"]}
    assert trained == {str([label, "a"] if is_list else label) for label in labels}
    assert splits["train"].num_rows + splits["validation"].num_rows == len(labels)
    whole = path.read_text().splitlines()
    for name in ("train", "validation"):
        for row, value in enumerate(splits[name]):
            line = int(str(splits.places[name](row)).rpartition(" ")[2])
            assert json.loads(whole[line - 1]) == value


def test_a_fraction_of_labels_that_occur_once_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"label": "{row}"}}\n' for row in range(10)))
    with pytest.raises(ValueError, match=r"validation_fraction=0\.2 leaves no row to validate on: each of the 2 rows"):
        load_splits(train_file=path, validation_fraction=0.2, label_column="label")


def test_a_folder_that_cannot_be_a_source_is_told(tmp_path):
    (tmp_path / "data[1]").mkdir()
    (tmp_path / "data[1]" / "train.csv").write_text("text\na\n")
    with pytest.raises(ValueError, match=r"source='.*data\[1\]' must be a folder without the characters \*, \? and \["):
        load_splits(str(tmp_path / "data[1]"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"the folder '.*empty' could not be read: .*any data files\. Correct it, or use"
    ):
        load_splits(str(tmp_path / "empty"))


@pytest.fixture
def _bars_on(monkeypatch):
    datasets.enable_progress_bars()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


@pytest.mark.usefixtures("_bars_on")
@pytest.mark.parametrize(
    ("bars", "long"), [(bars_for_many_rows, 50_000), (bars_for_many_bytes, 50_000_000), (bars_for_many_bytes, None)]
)
def test_nothing_is_shown_where_nobody_looks(monkeypatch, bars, long):
    with bars(long):
        assert not datasets.are_progress_bars_disabled()
    with bars(1):
        assert datasets.are_progress_bars_disabled()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with bars(long):
        assert datasets.are_progress_bars_disabled()
    assert not datasets.are_progress_bars_disabled()


@pytest.mark.usefixtures("_bars_on")
def test_few_rows_hide_the_bars_and_many_do_not():
    with bars_for_many_rows(10):
        assert datasets.are_progress_bars_disabled()
    assert not datasets.are_progress_bars_disabled()
    with bars_for_many_rows(50_000):
        assert not datasets.are_progress_bars_disabled()


@pytest.mark.usefixtures("_bars_on")
def test_the_former_setting_is_back_after_an_error():
    with pytest.raises(KeyError), bars_for_many_rows(10):
        raise KeyError
    assert not datasets.are_progress_bars_disabled()


def test_bars_that_were_off_stay_off():
    datasets.disable_progress_bars()
    with bars_for_many_rows(10):
        pass
    assert datasets.are_progress_bars_disabled()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"\xef\xbb\xbfa\r\nb", ["a", "b"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
    ],
)
def test_each_line_is_a_text(tmp_path, content, lines):
    (tmp_path / "texts").write_bytes(content)
    assert lines_of_file(tmp_path / "texts") == lines
    assert lines_of_stream(io.BytesIO(content)) == lines


def test_other_encodings_are_refused_with_the_line(tmp_path):
    with pytest.raises(ValueError, match=r"^stdin, line 2: not UTF-8 \(byte 0xe4\)"):
        lines_of_stream(io.BytesIO(b"a\nB\xe4r\n"))
