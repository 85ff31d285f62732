"""`data.streaming` reads a dataset of the Hub piece by piece, and goes on where it was."""

import io
import json

import pytest
from datasets import Dataset

from tests.hub import faults
from tests.hub.client import run_client
from tests.hub.server import Hub

ROWS = [{"text": f"meow {row}", "label": "cat" if row % 2 else "dog"} for row in range(10)]

READ = """
    import json
    from itertools import islice
    from hf_maskattn.data.loading import load_shards, load_splits
    from hf_maskattn.data.streaming import RowStream

    def encode(batch, places):
        return {"text": batch["text"]}

    def texts(name, gone, rows):
        shards = load_shards(name, required_columns=["text", "label"])
        stream = RowStream(shards, encode, shuffle_buffer=3, skipped_batches=gone)
        return [row["text"] for row in islice(stream, rows)]

    found = {name: [texts(name, 0, 24), texts(name, 15, 9)] for name in ("user/parquet", "user/jsonl")}
    others = load_splits("user/parquet", train_split=None, validation_split=None, streaming=True)
    print(json.dumps({**found, "others": {name: split.num_rows for name, split in others.items()}}))
"""


def parquet(rows):
    buffer = io.BytesIO()
    Dataset.from_list(rows).to_parquet(buffer)
    return buffer.getvalue()


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A Hub with two datasets, one of which breaks off once, and what a client read there."""
    with Hub() as hub:
        shards = {f"data/train-0000{shard}-of-00002.parquet": parquet(ROWS[shard::2]) for shard in range(2)}
        hub.create("user/parquet", {**shards, "data/test-00000-of-00001.parquet": parquet(ROWS[:3])}, kind="datasets")
        hub.create("user/jsonl", {"train-0.jsonl": jsonl(ROWS[:5]), "train-1.jsonl": jsonl(ROWS[5:])}, kind="datasets")
        hub.fail("GET", "/lfs/*/user/parquet/*", faults.dropped)
        ended = run_client(hub, READ, tmp_path_factory.mktemp("client"))
        assert ended.returncode == 0, ended.stderr
        yield hub, json.loads(ended.stdout)


@pytest.mark.parametrize("name", ["user/parquet", "user/jsonl"])
def test_each_row_comes_once_a_pass_and_the_rest_is_what_was_left(session, name):
    everything, rest = session[1][name]
    assert sorted(everything[:10]) == sorted(everything[10:20]) == sorted(row["text"] for row in ROWS)
    assert rest == everything[15:]


def test_a_connection_that_breaks_off_is_taken_up(session):
    dropped = [request for request in session[0].requests("GET", "/lfs/*/user/parquet/*") if request.fault]
    assert len(dropped) == 1


def test_other_splits_are_read_alone(session):
    assert session[1]["others"] == {"test": 3}
