import pickle
from itertools import islice
from types import SimpleNamespace

import pytest
from datasets import Dataset
from torch.utils.data import DataLoader

from hf_maskattn.data import streaming as row_stream
from hf_maskattn.data.encoding import encode_for_masked_lm, encode_texts
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.data.tokenizers import train_tokenizer
from tests.data.numbered_shards import NumberedShards

BATCH = 3


def doubled(batch, places):
    for number, place in zip(batch["x"], places, strict=True):
        if number == 17:
            raise ValueError(f"{place}: no luck")
    return {"x": batch["x"], "twice": [2 * number for number in batch["x"]]}


def stream(rows=16, shards=4, **settings):
    return RowStream(NumberedShards(rows, shards), doubled, **{"shuffle_buffer": 5, "batch_size": BATCH, **settings})


@pytest.fixture
def in_worker(monkeypatch):
    """Reads a stream as one of several workers of a `DataLoader` would, without starting any."""

    def read(found, workers, worker, rows):
        info = SimpleNamespace(num_workers=workers, id=worker)
        with monkeypatch.context() as context:
            context.setattr(row_stream, "get_worker_info", lambda: info)
            context.setenv("TOKENIZERS_PARALLELISM", "false")
            return [row["x"] for row in islice(found, rows)]

    return read


def test_rows_are_encoded_when_they_are_read():
    assert list(islice(stream(shuffle_buffer=0), 2)) == [{"x": 0, "twice": 0}, {"x": 1, "twice": 2}]


def test_a_stream_goes_on_after_its_last_row():
    found = [row["x"] for row in islice(stream(), 48)]
    assert [sorted(found[start : start + 16]) for start in (0, 16, 32)] == 3 * [list(range(16))]


def batches(in_worker, workers, gone, count):
    """The batches that a `DataLoader` makes, which asks its workers in turns."""
    read = [in_worker(stream(batches=gone), workers, worker, BATCH * count) for worker in range(workers)]
    return [read[number % workers][number // workers * BATCH : (number // workers + 1) * BATCH] for number in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_batches_after_any_batch_are_those_that_were_left(in_worker, workers):
    everything = batches(in_worker, workers, 0, 16)
    for gone in (1, 2, 4, 7, 11):
        assert batches(in_worker, workers, gone, 5) == everything[gone : gone + 5]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_gives_the_batches_that_were_left(workers):
    def load(gone, count):
        loader = DataLoader(stream(batches=gone), batch_size=BATCH, num_workers=workers, multiprocessing_context=None)
        return [batch["x"].tolist() for batch in islice(loader, count)]

    everything = load(0, 9)
    assert load(3, 6) == everything[3:]


@pytest.mark.parametrize(("shards", "processes", "workers"), [(8, 2, 2), (3, 2, 2), (1, 2, 3)])
def test_processes_and_workers_share_the_rows(in_worker, shards, processes, workers):
    found = []
    for process in range(processes):
        for worker in range(workers):
            own = stream(16, shards, process=process, processes=processes, shuffle_buffer=0)
            read = in_worker(own, workers, worker, 40)
            found += read[: read.index(read[0], 1)]
    assert sorted(found) == list(range(16))


def test_an_error_names_the_row_and_its_shard(in_worker):
    with pytest.raises(ValueError, match=r"^row 2 of shard 3 of 4 \(counted from 0\): no luck$"):
        list(islice(stream(20, shuffle_buffer=0), 20))


def test_an_error_in_a_worker_comes_without_its_traceback():
    loader = DataLoader(stream(20, shards=2, shuffle_buffer=0), batch_size=BATCH, num_workers=1)
    with pytest.raises(ValueError, match=r"^row 7 of shard 1 of 2 \(counted from 0\): no luck$"):
        list(islice(loader, 20))


def test_a_stream_can_be_sent_to_a_worker():
    source = Dataset.from_dict({"x": list(range(5))}).to_iterable_dataset()
    found = RowStream(Shards(source), doubled, batches=2)
    assert list(islice(pickle.loads(pickle.dumps(found)), 5)) == list(islice(found, 5))


@pytest.mark.parametrize("kind", ["texts", "masked"])
def test_encoded_rows_are_those_of_a_dataset(kind):
    rows = Dataset.from_dict({"text": ["a b", "b", "c a b"], "label": ["x", "y", "x"]})
    tokenizer = train_tokenizer(rows["text"], kind="word", vocab_size=20, max_length=2)

    def encode(split):
        if kind == "masked":
            return encode_for_masked_lm(split, tokenizer, text_column="text", max_length=2)
        return encode_texts(split, tokenizer, text_column="text", label_column="label", labels=["x", "y"], max_length=2)

    assert list(islice(encode(Shards(rows.to_iterable_dataset())), 3)) == list(encode(rows))
