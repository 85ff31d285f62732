from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from hf_maskattn.data.row_stream import RowStream
from hf_maskattn.training.stream_position import StreamPosition
from tests.data.numbered_shards import NumberedShards

ARGS = SimpleNamespace(gradient_accumulation_steps=3, ignore_data_skip=False)


def state_at(step, **stored):
    attributes = {"batches": 3 * step, "shards": 4, "processes": 2, "workers": 1, "batch_size": 8, **stored}
    callbacks = {"StreamPosition": {"args": {}, "attributes": attributes}}
    return SimpleNamespace(global_step=step, max_steps=20, epoch=0.0, stateful_callbacks=callbacks)


def begin(position, state, args=ARGS, workers=0):
    stream = RowStream(NumberedShards(), None, processes=2, batch_size=8)
    position.on_train_begin(args, state, None, train_dataloader=DataLoader(stream, batch_size=8, num_workers=workers))
    return stream


def test_the_batches_that_were_trained_on_are_counted_and_taken_up():
    position, state = StreamPosition(), state_at(0)
    assert begin(position, state).batches == 0
    for state.global_step in (1, 2):
        position.on_step_end(ARGS, state, None)
    stored = position.state()["attributes"]
    assert stored == {"batches": 6, "shards": 4, "processes": 2, "workers": 1, "batch_size": 8}
    again = StreamPosition()
    assert begin(again, state_at(2, **stored)).batches == 6
    assert again.state() == position.state()


def test_a_step_with_another_number_of_batches_is_counted_as_it_was():
    assert begin(StreamPosition(), state_at(4, batches=7)).batches == 7


def test_the_share_of_the_run_is_known_after_a_resume():
    position, state = StreamPosition(), state_at(5)
    begin(position, state)
    position.on_step_end(ARGS, state, None)
    assert state.epoch == 0.25


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"shards": 5}, r"the number of files \(shards\) of the train split was 5 and is 4 now"),
        ({"processes": 3}, "the number of processes was 3 and is 2 now, .*: resume with 3"),
        ({"workers": 4}, r"training\.dataloader_num_workers was 4 and is 1 now"),
        ({"batch_size": 16}, r"the rows of a batch \(training\.per_device_train_batch_size\) was 16 and is 8 now"),
    ],
)
def test_a_stream_that_would_be_dealt_in_another_way_is_not_resumed(stored, message):
    with pytest.raises(ValueError, match=message):
        begin(StreamPosition(), state_at(2, **stored))


def test_who_asks_for_it_begins_the_stream_anew():
    args = SimpleNamespace(gradient_accumulation_steps=3, ignore_data_skip=True)
    assert begin(StreamPosition(), state_at(2, processes=3), args).batches == 0


def test_no_worker_and_one_worker_are_the_same():
    assert begin(StreamPosition(), state_at(2), workers=1).batches == 6
