"""`data.source: user/dataset` reads JSONL and Parquet from the Hub, wholly or not at all.

What `load_splits("user/name")` does when the Hub fails once, and again after that:

| request | fault | outcome | again |
| --- | --- | --- | --- |
| GET information | 500, or 429 with Retry-After | `FileNotFoundError` (not retried) | loads |
| GET information | cut, or dropped in the middle | `FileNotFoundError` | loads |
| GET of a file | 500 | `FileNotFoundError` (not retried) | loads |
| GET of a file | 429, Retry-After: 1 | loads after the wait | loads |
| GET of a file | cut, or dropped in the middle | loads after a retry | loads |
| GET of a file | truncated | `FileNotFoundError` | loads |
| GET of a file | content of the right size, changed | `ValueError`: the file cannot be read | the same |

The last stays in the cache of the client; `hf cache verify --repo-type dataset user/name` finds it.
"""

import gzip
import io
import json

import pytest
from datasets import Dataset

from tests.hub import faults
from tests.hub.client import findings
from tests.hub.server import Hub

ROWS = [{"text": f"meow {row}", "label": "cat" if row % 2 else "dog"} for row in range(10)]
SPLITS = {"train": ROWS, "validation": ROWS[:4], "test": ROWS[4:]}

CELLS = ["NA", "01", "1", "2024-03-01", "", "None"]
CSV = "text,label\n" + "".join(f"{cell},1\n" for cell in CELLS)

INFORMATION = "/api/datasets/user/{}"
JSONL = "*/user/{}/*/train.jsonl"
PARQUET = "/lfs/*/user/{}/*/train.parquet"

NOT_LOADED = "FileNotFoundError: the dataset 'user/{}' could not be loaded from the Hub: "
FAULTY = {
    "information-500": (INFORMATION, faults.status(500), NOT_LOADED + "Server error '500"),
    "information-429": (INFORMATION, faults.crowded_out, NOT_LOADED + "429 Too Many Requests"),
    "information-cut": (INFORMATION, faults.unheard, NOT_LOADED + "Server disconnected without sending a response"),
    "information-dropped": (INFORMATION, faults.dropped, NOT_LOADED + "peer closed connection"),
    "jsonl-500": (JSONL, faults.status(500), NOT_LOADED + "Server error '500"),
    "jsonl-429": (JSONL, faults.crowded_out, None),
    "jsonl-cut": (JSONL, faults.unheard, None),
    "jsonl-truncated": (JSONL, faults.truncated, NOT_LOADED + "Consistency check failed: file should be of size"),
    "parquet-dropped": (PARQUET, faults.dropped, None),
    "parquet-truncated": (PARQUET, faults.truncated, NOT_LOADED + "Consistency check failed: file should be of size"),
}
"""By name of a dataset: the request that fails once, how, and what `load_splits` says; None if it loads."""

NOT_READ = "ValueError: the dataset 'user/{}' (subset=None) could not be loaded: "
CHANGED = {
    "jsonl-changed": (JSONL, NOT_READ + "user/jsonl-changed/train.jsonl, line "),
    "parquet-changed": (PARQUET, NOT_READ + "Parquet magic bytes not found in footer"),
}
"""By name of a dataset: the file that arrives changed, and what `load_splits` says from then on."""

LOAD = """
    import os, sys
    sys.argv = ["hf-maskattn"]
    import datasets, huggingface_hub
    from hf_maskattn.data.loading import load_shards, load_splits

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
    for name in CHANGED + ["jsonl"]:
        verified = huggingface_hub.HfApi().verify_repo_checksums(f"user/{name}", repo_type="dataset")
        found[f"verify {name}"] = [mismatch["path"] for mismatch in verified.mismatches]
    attempt("streamed", lambda: list(datasets.load_dataset("user/streamed", split="train", streaming=True)))
"""


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(rows):
    buffer = io.BytesIO()
    Dataset.from_list(rows).to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A Hub with datasets, and what a client found there."""
    with Hub() as hub:
        splits = {f"{name}.jsonl": jsonl(rows) for name, rows in SPLITS.items()}
        hub.create("user/jsonl", splits, kind="datasets")
        files = {"train.csv.gz": gzip.compress(CSV.encode()), "validation.csv": "text,label\n1984,1\n"}
        hub.create("user/csv", files, kind="datasets")
        hub.create("user/broken", {"train.csv": "text,label\na\n"}, kind="datasets")
        hub.create("user/secret", splits, kind="datasets", private=True)
        shards = {f"data/train-0000{shard}-of-00002.parquet": parquet(ROWS[shard::2]) for shard in range(2)}
        hub.create("user/parquet", {**shards, "data/test-00000-of-00001.parquet": parquet(ROWS[:3])}, kind="datasets")
        hub.create("user/streamed", shards, kind="datasets")
        hub.fail("GET", "/lfs/*/user/streamed/*", faults.dropped)
        strikes = {name: (pattern, fault) for name, (pattern, fault, _) in FAULTY.items()}
        for name, (pattern, fault) in {
            **strikes,
            **{name: (at, faults.corrupted) for name, (at, _) in CHANGED.items()},
        }.items():
            file = {"train.parquet": parquet(ROWS)} if pattern == PARQUET else {"train.jsonl": jsonl(ROWS)}
            hub.create(f"user/{name}", file, kind="datasets")
            hub.fail("GET", pattern.format(name), fault)
        told = f"TOKEN, FAULTY, CHANGED = {hub.token!r}, {list(FAULTY)}, {list(CHANGED)}\n"
        yield hub, findings(hub, tmp_path_factory.mktemp("client"), told, LOAD)


def test_jsonl_of_the_hub(session):
    _, found = session
    assert found["jsonl"] == SPLITS


def test_cells_of_the_hub_are_what_the_file_says(session):
    _, found = session
    rows = [{"text": cell, "label": "1"} for cell in CELLS]
    assert found["csv"] == {"train": rows, "validation": [{"text": "1984", "label": "1"}]}
    assert found["csv, streamed"] == rows
    assert found["broken"].startswith(NOT_READ.format("broken") + "user/broken/train.csv, line 2: number of cells must be 2")


def test_parquet_shards_of_the_hub(session):
    hub, found = session
    splits = found["parquet"]
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [8, 2, 3]
    assert sorted(row["text"] for row in splits["train"] + splits["validation"]) == [row["text"] for row in ROWS]
    assert len(hub.requests("GET", "/lfs/*/user/parquet/*/train-*.parquet")) == 2


def test_what_is_wrong_with_a_name_is_told(session):
    _, found = session
    for name in ("nothing", "secret, nobody"):
        words = NOT_LOADED.format(name.split(",")[0]) + "Dataset"
        assert found[name].startswith(words)
        assert "doesn't exist on the Hub or cannot be accessed. Check the id and the network" in found[name]
    assert "(subset='none') could not be loaded" in found["subset"]


def test_a_private_dataset_opens_to_its_owner(session):
    _, found = session
    assert found["secret, token"] == SPLITS


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_ends_in_all_rows_or_in_an_error_and_leaves_nothing_broken(session, name):
    hub, found = session
    pattern, _, message = FAULTY[name]
    assert len([request for request in hub.requests("GET", pattern.format(name)) if request.fault]) == 1
    if message is None:
        assert found[name] == {"train": ROWS}
    else:
        assert found[name].startswith(message.format(name))
    assert found[f"{name}, again"] == {"train": ROWS}


@pytest.mark.parametrize("name", CHANGED)
def test_a_file_that_arrived_changed_is_never_read_in_part(session, name):
    _, found = session
    _, message = CHANGED[name]
    assert found[name].startswith(message.format(name))
    assert found[f"{name}, again"].startswith(message.format(name))
    assert found[f"verify {name}"] == [f"train.{name.split('-')[0]}"]
    assert found["verify jsonl"] == []


def test_a_stream_that_is_cut_goes_on_without_losing_or_doubling_a_row(session):
    hub, found = session
    assert found["streamed"] == ROWS[0::2] + ROWS[1::2]
    assert [request.fault for request in hub.requests("GET", "/lfs/*/user/streamed/*") if request.fault] == ["dropped"]
    assert {request.status for request in hub.requests("GET", "/lfs/*/user/streamed/*")} == {206}
