"""Datasets of the Hub: `data.source: user/dataset` reads JSONL, CSV and Parquet completely or not at all.

A changed file of the right size stays in the cache of the client. `hf cache verify --repo-type dataset user/name` finds it.
"""

import gzip
import io
import json

import pytest
from datasets import Dataset

from tests.hub import faults
from tests.hub.client import findings
from tests.hub.server import Hub

pytestmark = pytest.mark.slow

ROWS = [{"text": f"meow {row}", "label": "cat" if row % 2 else "dog"} for row in range(10)]
SPLITS = {"train": ROWS, "validation": ROWS[:4], "test": ROWS[4:]}

VALUES = ["NA", "01", "1", "2024-03-01", "", "None"]
CSV = "text,label\n" + "".join(f"{value},1\n" for value in VALUES)

INFORMATION = "/api/datasets/user/{}"
JSONL = "*/user/{}/*/train.jsonl"
PARQUET = "/lfs/*/user/{}/*/train.parquet"

NOT_LOADED = "FileNotFoundError: the dataset 'user/{}' could not be loaded from the Hub: "
FAULTY = {
    "information-500": (INFORMATION, faults.status(500), NOT_LOADED + "Server error '500"),
    "information-dropped": (INFORMATION, faults.dropped, NOT_LOADED + "peer closed connection"),
    "jsonl-500": (JSONL, faults.status(500), NOT_LOADED + "Server error '500"),
    "parquet-truncated": (PARQUET, faults.truncated, NOT_LOADED + "Consistency check failed: file should be of size"),
}
"""By name of a dataset: the request that fails once, how, and the error of `load_splits`."""

NOT_READ = "ValueError: the dataset 'user/{}' (subset=None) could not be loaded: "
CHANGED = {
    "jsonl-changed": (JSONL, NOT_READ + "user/jsonl-changed/train.jsonl, line "),
    "parquet-changed": (PARQUET, NOT_READ + "Parquet magic bytes not found in footer"),
}
"""By name of a dataset: the file that arrives changed, and the error of `load_splits` from then on."""

LOAD = """
    import os, sys
    sys.argv = ["hf-maskattn"]
    from itertools import islice
    from hf_maskattn.data.loading import load_shards, load_splits
    from hf_maskattn.data.streaming import RowStream

    def load(name, **settings):
        splits = load_splits(f"user/{name}", required_columns=["text", "label"], **settings)
        return {split: rows.to_list() for split, rows in splits.items()}

    attempt("jsonl", lambda: load("jsonl"))
    attempt("parquet", lambda: load("parquet", validation_fraction=0.2))
    attempt("subset", lambda: load("jsonl", subset="none"))
    attempt("csv", lambda: load("csv", test_split=None))
    def stream():
        shards = load_shards("user/csv", required_columns=["text", "label"])
        return [row for shard in range(len(shards)) for table in shards.tables(shard) for row in table.to_pylist()]
    attempt("csv, streamed", stream)
    attempt("broken", lambda: load("broken", validation_split=None, test_split=None))
    attempt("nothing", lambda: load("nothing"))
    attempt("secret, nobody", lambda: load("secret"))
    os.environ["HF_TOKEN"] = TOKEN
    attempt("secret, token", lambda: load("secret"))
    del os.environ["HF_TOKEN"]
    for name in FAULTY + CHANGED:
        attempt(name, lambda: load(name, validation_split=None, test_split=None))
        attempt(f"{name}, again", lambda: load(name, validation_split=None, test_split=None))

    def encode(batch, places):
        return {"text": batch["text"]}

    def texts(name, skipped, rows):
        shards = load_shards(f"user/{name}", required_columns=["text", "label"])
        stream = RowStream(shards, encode, shuffle_buffer=3, skipped_batches=skipped)
        return [row["text"] for row in islice(stream, rows)]

    for name in ("streamed", "streamed-jsonl"):
        found[name] = [texts(name, 0, 24), texts(name, 15, 9)]
    others = load_splits("user/streamed", train_split=None, validation_split=None, streaming=True)
    found["other splits"] = {name: split.num_rows for name, split in others.items()}
"""


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(rows):
    buffer = io.BytesIO()
    Dataset.from_list(rows).to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A Hub with datasets, and what a client read there."""
    with Hub() as hub:
        splits = {f"{name}.jsonl": jsonl(rows) for name, rows in SPLITS.items()}
        hub.create("user/jsonl", splits, kind="datasets")
        files = {"train.csv.gz": gzip.compress(CSV.encode()), "validation.csv": "text,label\n1984,1\n"}
        hub.create("user/csv", files, kind="datasets")
        hub.create("user/broken", {"train.csv": "text,label\na\n"}, kind="datasets")
        hub.create("user/secret", splits, kind="datasets", private=True)
        shards = {f"data/train-0000{shard}-of-00002.parquet": parquet(ROWS[shard::2]) for shard in range(2)}
        shards["data/test-00000-of-00001.parquet"] = parquet(ROWS[:3])
        for name in ("parquet", "streamed"):
            hub.create(f"user/{name}", shards, kind="datasets")
        halves = {f"train-{half}.jsonl": jsonl(ROWS[5 * half : 5 * half + 5]) for half in range(2)}
        hub.create("user/streamed-jsonl", halves, kind="datasets")
        hub.fail("GET", "/lfs/*/user/streamed/*", faults.dropped)
        strikes = {name: (pattern, fault) for name, (pattern, fault, _) in FAULTY.items()}
        strikes |= {name: (pattern, faults.corrupted) for name, (pattern, _) in CHANGED.items()}
        for name, (pattern, fault) in strikes.items():
            file = {"train.parquet": parquet(ROWS)} if pattern == PARQUET else {"train.jsonl": jsonl(ROWS)}
            hub.create(f"user/{name}", file, kind="datasets")
            hub.fail("GET", pattern.format(name), fault)
        settings = f"TOKEN, FAULTY, CHANGED = {hub.token!r}, {list(FAULTY)}, {list(CHANGED)}\n"
        yield hub, findings(hub, tmp_path_factory.mktemp("client"), settings, LOAD)


def test_load_splits_of_jsonl(session):
    _, found = session
    assert found["jsonl"] == SPLITS


def test_load_splits_keeps_csv_values(session):
    _, found = session
    rows = [{"text": value, "label": "1"} for value in VALUES]
    assert found["csv"] == {"train": rows, "validation": [{"text": "1984", "label": "1"}]}
    assert found["csv, streamed"] == rows
    assert found["broken"].startswith(NOT_READ.format("broken") + "user/broken/train.csv, line 2: number of cells must be 2")


def test_load_splits_of_parquet_shards(session):
    hub, found = session
    splits = found["parquet"]
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [8, 2, 3]
    assert sorted(row["text"] for row in splits["train"] + splits["validation"]) == [row["text"] for row in ROWS]
    assert len(hub.requests("GET", "/lfs/*/user/parquet/*/train-*.parquet")) == 2


def test_load_splits_names_what_is_missing(session):
    _, found = session
    for name in ("nothing", "secret, nobody"):
        assert found[name].startswith(NOT_LOADED.format(name.split(",")[0]) + "Dataset")
        assert "doesn't exist on the Hub or cannot be accessed. Check the id and the network" in found[name]
    assert "(subset='none') could not be loaded" in found["subset"]


def test_load_splits_of_private_dataset(session):
    _, found = session
    assert found["secret, token"] == SPLITS


@pytest.mark.parametrize("name", FAULTY)
def test_load_splits_raises_on_fault_and_loads_afterwards(session, name):
    hub, found = session
    pattern, _, message = FAULTY[name]
    assert len([request for request in hub.requests("GET", pattern.format(name)) if request.fault]) == 1
    assert found[name].startswith(message.format(name))
    assert found[f"{name}, again"] == {"train": ROWS}


@pytest.mark.parametrize("name", CHANGED)
def test_load_splits_never_reads_changed_file_in_part(session, name):
    _, found = session
    _, message = CHANGED[name]
    assert found[name].startswith(message.format(name))
    assert found[f"{name}, again"].startswith(message.format(name))


@pytest.mark.parametrize("name", ["streamed", "streamed-jsonl"])
def test_stream_yields_each_row_once_and_resumes(session, name):
    every_row, rest = session[1][name]
    assert sorted(every_row[:10]) == sorted(every_row[10:20]) == sorted(row["text"] for row in ROWS)
    assert rest == every_row[15:]


def test_stream_continues_after_broken_connection(session):
    struck = [request for request in session[0].requests("GET", "/lfs/*/user/streamed/*") if request.fault]
    assert len(struck) == 1


def test_stream_reads_only_the_splits_asked_for(session):
    assert session[1]["other splits"] == {"test": 3}
