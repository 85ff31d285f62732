import json
import pickle
import re
from dataclasses import replace
from inspect import signature
from itertools import islice
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hf_maskattn.data import streaming
from hf_maskattn.data.files import list_files
from hf_maskattn.data.streaming import ROW, SHARD, Partition, RowStream, ShardReader, Shards
from tests.data.numbered_shards import NumberedShards

BATCH = 3
VALID = '{"text":"a","label":"x"}\n'


@pytest.fixture
def shards(tmp_path, write):
    """Writes files with the given content and opens them as shards."""

    def open_files(contents, suffix="jsonl"):
        for number, content in enumerate(contents):
            if isinstance(content, pa.Table):
                pq.write_table(content, tmp_path / f"part-{number}.{suffix}")
            else:
                write(f"part-{number}.{suffix}", content)
        return Shards(list_files(tmp_path / f"part-*.{suffix}"))

    return open_files


def rows_of(shards, shard):
    return [row for table in shards.tables(shard) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("suffix", "first", "second"),
    [
        ("jsonl", VALID, '{"text":"b","label":"y"}\n'),
        ("json", '[{"text":"a","label":"x"}]', '[{"text":"b","label":"y"}]'),
        ("csv", "text,label\na,x\n", "text,label\nb,y\n"),
        ("parquet", pa.table({"text": ["a"], "label": ["x"]}), pa.table({"text": ["b"], "label": ["y"]})),
    ],
)
def test_shards_each_file_is_a_shard(shards, tmp_path, suffix, first, second):
    opened = shards([first, second], suffix)
    assert len(opened) == 2
    assert opened.column_names == ["text", "label"]
    assert opened.name(1) == str(tmp_path / f"part-1.{suffix}")
    assert [rows_of(opened, shard) for shard in range(2)] == [[{"text": "a", "label": "x"}], [{"text": "b", "label": "y"}]]
    assert [opened.count(shard) for shard in range(2)] == [1, 1]


def test_shards_first_rows_span_shards(shards):
    opened = shards([VALID * 3, VALID.replace('"x"', '"y"') * 3])
    assert list(opened.first_rows(4)["label"]) == ["x", "x", "x", "y"]
    assert opened.first_rows().num_rows == 6
    assert opened.first_rows(100).num_rows == 6
    assert opened.first_rows(2).features == opened.features


def test_shards_select_keeps_class_labels(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["x", "y"]), "other": datasets.Value("int64")})
    datasets.Dataset.from_dict({"label": [1], "other": [5]}, features=features).to_parquet(tmp_path / "a.parquet")
    opened = Shards(list_files(tmp_path / "a.parquet")).select(["label"])
    assert opened.features == datasets.Features({"label": features["label"]})
    assert opened.first_rows().features == opened.features
    assert rows_of(opened, 0) == [{"label": 1}]


def test_shards_of_streamed_dataset():
    source = datasets.Dataset.from_dict({"text": ["a", "b", "c"]}).to_iterable_dataset(num_shards=3)
    opened = Shards(source)
    assert opened.name(2) == "shard 2 of 3"
    assert rows_of(opened, 2) == [{"text": "c"}]
    assert opened.count(2) == 1


def test_shards_count_parquet_rows_from_footer(shards, monkeypatch):
    opened = shards([pa.table({"text": ["a"] * 7})], "parquet")
    monkeypatch.setattr(opened, "_read", None)
    assert opened.count(0) == 7


@pytest.mark.parametrize(
    ("suffix", "second", "message"),
    [
        ("jsonl", VALID + '{"text":"b"\n', r"part-1\.jsonl, line 2: invalid JSON in column 12"),
        ("jsonl", VALID.encode() + '{"text":"é"}\n'.encode("latin-1"), r"part-1\.jsonl, line 2: not UTF-8 \(byte 0xe9\)"),
        ("csv", "text,label\na\n", r"part-1\.csv, line 2: number of cells must be 2 .*, got 1\."),
        ("csv", "text\na\n", r"part-1\.csv: the column 'label' of the first file is missing\. The columns are text"),
        (
            "parquet",
            pa.table({"text": ["a"], "label": [[1]]}),
            r"part-1\.parquet: the column 'label' must be string, as in the first file, got list<",
        ),
        (
            "parquet",
            pa.table({"text": pa.array([b"\xff"]).cast(pa.string(), safe=False), "label": ["x"]}),
            r"part-1\.parquet: cannot be read: ArrowInvalid: .*[Ii]nvalid UTF-?8",
        ),
        ("parquet", "truncated", r"part-1\.parquet: cannot be read: ArrowInvalid: "),
    ],
)
def test_shards_reject_invalid_later_file(shards, suffix, second, message):
    first = {"jsonl": VALID, "csv": "text,label\na,x\n", "parquet": pa.table({"text": ["a"], "label": ["x"]})}[suffix]
    opened = shards([first, second], suffix)
    assert rows_of(opened, 0) == [{"text": "a", "label": "x"}]
    with pytest.raises(ValueError, match=message):
        rows_of(opened, 1)


@pytest.mark.parametrize(
    ("suffix", "first", "message"),
    [
        ("jsonl", '{"text":\n', r"part-0\.jsonl, line 1: invalid JSON"),
        ("jsonl", "\n\n", r"part-0\.jsonl: there are no rows\. Add at least one"),
        ("parquet", pa.table({"text": pa.array([], pa.string())}), r"part-0\.parquet: there are no rows"),
        ("parquet", "no parquet", r"part-0\.parquet: cannot be read: ArrowInvalid: "),
    ],
)
def test_shards_reject_invalid_first_file(shards, suffix, first, message):
    with pytest.raises(ValueError, match=message):
        shards([first], suffix).first_rows(5)


def test_shards_name_unreachable_source():
    def rows():
        yield {"text": "a"}
        raise ConnectionError("no network")

    source = datasets.IterableDataset.from_generator(rows, features=datasets.Features({"text": datasets.Value("string")}))
    with pytest.raises(OSError, match=re.escape("shard 0 of 1, after ") + r"\d+ rows: no network"):
        rows_of(Shards(source), 0)


def test_shards_skip_empty_parquet_file(shards):
    empty = pa.table({"text": pa.array([], pa.string())})
    opened = shards([pa.table({"text": ["a"]}), empty], "parquet")
    assert rows_of(opened, 1) == []
    assert opened.first_rows().num_rows == 1


def test_shards_read_long_files_in_tables(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": str(row)}) + "\n" for row in range(10_001)))
    opened = Shards(list_files(path))
    assert [len(table) for table in opened.tables(0)] == [10_000, 1]


def reader(shards, partition=None, window=7, seed=(3,)):
    return ShardReader(shards, partition or Partition(list(range(len(shards)))), window=window, seed=seed)


def rows(shard_reader, count, skipped=0):
    return list(islice((row for table in shard_reader.read_from(skipped) for row in table["x"].to_pylist()), count))


@pytest.mark.skipif("strategy" not in signature(split_dataset_by_node).parameters, reason="needs datasets 5.1")
@pytest.mark.parametrize(("shards", "readers"), [(4, 2), (5, 2), (4, 3), (4, 4), (3, 4), (1, 3)])
def test_partition_split_matches_datasets(shards, readers):
    source = Dataset.from_dict({"x": list(range(50))}).to_iterable_dataset(num_shards=shards)
    strategy = "shards" if shards >= readers else "examples"
    all_rows = Partition(list(range(shards)))
    opened = Shards(source)
    for number in range(readers):
        part = reader(opened, all_rows.split(readers, number), window=0)
        expected = [row["x"] for row in split_dataset_by_node(source, number, readers, strategy=strategy)]
        if strategy == "examples":
            # Counted within each shard here, so that a reader need not know how many rows came before.
            table = next(part.read_from(0))
            positions = zip(table[SHARD].to_pylist(), table[ROW].to_pylist(), strict=True)
            assert {(row - shard) % readers for shard, row in positions} == {number}
            assert abs(len(table) - len(expected)) <= 1
        else:
            assert rows(part, len(expected)) == expected


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(24, 60))
def test_partition_split_assigns_each_row_once(shards, processes, workers, count):
    opened = NumberedShards(count, shards)
    all_rows = Partition(list(range(shards)))
    assigned = []
    for process in range(processes):
        for worker in range(workers):
            part = all_rows.split(processes, process).split(workers, worker)
            assigned += [
                (shard, row) for shard in part.shards for row in range(part.first_row(shard), opened.count(shard), part.step)
            ]
    assert sorted(assigned) == [(shard, row) for shard in range(shards) for row in range(opened.count(shard))]


def test_reader_permutes_rows_in_each_pass():
    passes = [rows(reader(NumberedShards()), 50, skipped) for skipped in (0, 50, 100)]
    assert all(sorted(order) == list(range(50)) for order in passes)
    assert passes[0] != passes[1] != passes[2] != list(range(50))


def test_reader_order_depends_on_seed():
    first, again, other = (rows(reader(NumberedShards(), seed=seed), 50) for seed in [(3, 1), (3, 1), (3, 2)])
    assert first == again != other


def test_reader_permutes_within_windows():
    table = next(reader(NumberedShards(60, 6), window=10).read_from(0))
    assert len(set(table[SHARD].to_pylist())) == 1
    assert sorted(table[ROW].to_pylist()) == list(range(10)) != table[ROW].to_pylist()


def test_reader_permutes_each_window_differently():
    order = rows(reader(NumberedShards(60, 1), window=10), 20)
    assert order[:10] != [row - 10 for row in order[10:]]


def test_reader_without_window_keeps_order():
    assert rows(reader(NumberedShards(), window=0), 70) == [*range(50), *range(20)]


def test_reader_windows_span_shards():
    table = next(reader(NumberedShards(50, 10), window=20).read_from(0))
    assert len(table) == 20
    assert len(set(table[SHARD].to_pylist())) == 4


@pytest.mark.parametrize("window", [0, 1, 7, 50, 1000])
@pytest.mark.parametrize("partition", [None, Partition([2, 0]), Partition([0, 1, 2, 3], first=1, step=3)])
def test_reader_starts_at_any_row(window, partition):
    shards = NumberedShards()
    all_rows = rows(reader(shards, partition, window), 120)
    for skipped in range(0, 110, 3):
        assert rows(reader(shards, partition, window), 10, skipped) == all_rows[skipped : skipped + 10], skipped


def test_reader_starts_in_long_windows():
    shards = NumberedShards(3300, 2)
    all_rows = rows(reader(shards, window=2500), 6600)
    assert sorted(all_rows[:3300]) == list(range(3300))
    for skipped in (999, 1000, 2400, 2501, 3299, 3300, 5001):
        assert rows(reader(shards, window=2500), 40, skipped) == all_rows[skipped : skipped + 40]


def test_reader_does_not_read_skipped_parquet_files(tmp_path, monkeypatch):
    files = [tmp_path / f"{number}.parquet" for number in range(5)]
    for number, file in enumerate(files):
        pq.write_table(pa.table({"x": list(range(10 * number, 10 * number + 10))}), file)
    shards, read = Shards(list_files(tmp_path / "*.parquet")), []
    all_rows = rows(reader(shards, window=5), 100)
    tables = shards.tables
    monkeypatch.setattr(shards, "tables", lambda shard: read.append(shard) or tables(shard))
    assert rows(reader(shards, window=5), 3, skipped=37) == all_rows[37:40]
    assert len(read) == 1
    assert rows(reader(shards, window=5), 3, skipped=87) == all_rows[87:90]
    assert len(read) == 2


def test_reader_rejects_partition_without_rows():
    with pytest.raises(ValueError, match=r"shard 0 of 1: .* too few rows for 4 readers\. Use fewer processes or .*workers"):
        rows(reader(NumberedShards(3, 1), Partition([0], 3, 4)), 1)
    with pytest.raises(ValueError, match="too few rows"):
        rows(reader(NumberedShards(3, 1), Partition([0], 3, 4)), 1, skipped=5)


def double(batch, locations):
    for number, location in zip(batch["x"], locations, strict=True):
        if number == 17:
            raise ValueError(f"{location}: invalid")
    return {"x": batch["x"], "twice": [2 * number for number in batch["x"]]}


def stream(rows=16, shards=4, **settings):
    return RowStream(NumberedShards(rows, shards), double, **{"shuffle_buffer": 5, "batch_size": BATCH, **settings})


@pytest.fixture
def in_worker(monkeypatch):
    """Reads a stream as in a worker of a `DataLoader`, without starting one."""

    def read(row_stream, workers, worker, num_rows):
        info = SimpleNamespace(num_workers=workers, id=worker)
        with monkeypatch.context() as context:
            context.setattr(streaming, "get_worker_info", lambda: info)
            context.setenv("TOKENIZERS_PARALLELISM", "false")
            return [row["x"] for row in islice(row_stream, num_rows)]

    return read


def test_stream_encodes_rows():
    assert list(islice(stream(shuffle_buffer=0), 2)) == [{"x": 0, "twice": 0}, {"x": 1, "twice": 2}]


def test_stream_is_endless():
    order = [row["x"] for row in islice(stream(), 48)]
    assert [sorted(order[start : start + 16]) for start in (0, 16, 32)] == 3 * [list(range(16))]


def batches(in_worker, workers, skipped, count):
    """Return the batches of a `DataLoader`, which reads from its workers in turn."""
    read = [in_worker(stream(skipped_batches=skipped), workers, worker, BATCH * count) for worker in range(workers)]
    return [read[number % workers][number // workers * BATCH : (number // workers + 1) * BATCH] for number in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_stream_starts_at_any_batch(in_worker, workers):
    all_rows = batches(in_worker, workers, 0, 16)
    for skipped in (1, 2, 4, 7, 11):
        assert batches(in_worker, workers, skipped, 5) == all_rows[skipped : skipped + 5]


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_starts_at_any_batch_in_dataloader(workers):
    def load(skipped, count):
        loader = DataLoader(
            stream(skipped_batches=skipped), batch_size=BATCH, num_workers=workers, multiprocessing_context=None
        )
        return [batch["x"].tolist() for batch in islice(loader, count)]

    all_rows = load(0, 9)
    assert load(3, 6) == all_rows[3:]


@pytest.mark.parametrize(("shards", "processes", "workers"), [(8, 2, 2), (3, 2, 2), (1, 2, 3)])
def test_stream_distributes_rows_over_readers(in_worker, shards, processes, workers):
    all_rows = []
    for process in range(processes):
        for worker in range(workers):
            part = stream(16, shards, process_index=process, num_processes=processes, shuffle_buffer=0)
            read = in_worker(part, workers, worker, 40)
            all_rows += read[: read.index(read[0], 1)]
    assert sorted(all_rows) == list(range(16))


def test_replace_returns_configured_copy():
    original = stream(shuffle_buffer=0)
    configured = replace(original, seed=3, batch_size=2, process_index=1, num_processes=2, skipped_batches=1)
    assert (original.seed, original.batch_size, original.process_index, original.num_processes) == (0, BATCH, 0, 1)
    assert (configured.seed, configured.batch_size) == (3, 2)
    assert (configured.process_index, configured.num_processes) == (1, 2)
    assert [row["x"] for row in islice(configured, 2)] == [6, 7]


def test_stream_error_names_row_and_shard():
    with pytest.raises(ValueError, match=r"^row 2 of shard 3 of 4 \(counted from 0\): invalid$"):
        list(islice(stream(20, shuffle_buffer=0), 20))


def test_stream_error_in_worker_without_traceback():
    loader = DataLoader(stream(20, shards=2, shuffle_buffer=0), batch_size=BATCH, num_workers=1)
    with pytest.raises(ValueError, match=r"^row 7 of shard 1 of 2 \(counted from 0\): invalid$"):
        list(islice(loader, 20))


@pytest.mark.slow
def test_stream_can_be_pickled():
    source = Dataset.from_dict({"x": list(range(5))}).to_iterable_dataset()
    row_stream = RowStream(Shards(source), double, skipped_batches=2)
    assert list(islice(pickle.loads(pickle.dumps(row_stream)), 5)) == list(islice(row_stream, 5))
