import logging
import os
from types import SimpleNamespace

import pytest
import torch

from hf_maskattn.training.launch import check_launch, warn_of_busy_cores


@pytest.fixture
def launched(monkeypatch):
    """Sets what a launcher sets, and gives the arguments of Trainer in one of its processes."""

    def arrange(world_size=1, device="cpu", **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return SimpleNamespace(world_size=world_size, device=torch.device(device))

    return arrange


def test_a_single_process_is_well_launched(launched, caplog):
    check_launch(launched())
    assert not caplog.text


def test_processes_that_joined_are_well_launched(launched, caplog):
    check_launch(launched(world_size=2, WORLD_SIZE="2", MASTER_PORT="1"))
    check_launch(launched(world_size=2, device="cuda", WORLD_SIZE="2", MASTER_PORT="1", ACCELERATE_USE_FSDP="true"))
    assert not caplog.text


def test_processes_that_would_each_train_alone_are_refused(launched):
    with pytest.raises(ValueError, match=r"2 processes were started.*set training\.use_cpu=true"):
        check_launch(launched(world_size=1, WORLD_SIZE="2"))


@pytest.mark.parametrize(("variable", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")])
def test_a_model_that_accelerate_would_not_shard_is_refused(launched, variable, name):
    with pytest.raises(ValueError, match=f"accelerate shards models by {name} on accelerators alone"):
        check_launch(launched(world_size=2, WORLD_SIZE="2", **{variable: "true"}))


def test_weights_that_would_not_be_gathered_are_refused(launched):
    with pytest.raises(ValueError, match="fsdp_state_dict_type FULL_STATE_DICT"):
        check_launch(
            launched(
                world_size=2,
                device="cuda",
                WORLD_SIZE="2",
                ACCELERATE_USE_FSDP="true",
                FSDP_STATE_DICT_TYPE="SHARDED_STATE_DICT",
            )
        )


def test_the_one_process_of_a_launch_on_cpus_is_told_of(launched, caplog):
    with caplog.at_level(logging.WARNING):
        check_launch(launched(MASTER_PORT="29500", ACCELERATE_USE_CPU="True"))
    assert "started one process: it leaves several to mpirun" in caplog.text


@pytest.fixture
def machine(monkeypatch):
    """Sets how many cores a machine has, how busy they are, and how many threads torch takes."""

    def arrange(cores, load, threads):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    return arrange


@pytest.mark.parametrize(
    ("cores", "load", "threads", "advice"),
    [(2, 2.0, 2, 1), (2, 1.0, 2, 1), (2, 7.5, 2, 1), (8, 8.0, 4, 1), (8, 6.0, 4, 2), (64, 3.0, 64, 61)],
)
def test_threads_that_would_wait_for_each_other_are_told_of(launched, machine, caplog, cores, load, threads, advice):
    machine(cores, load, threads)
    warn_of_busy_cores(launched())
    (record,) = caplog.records
    assert f"OMP_NUM_THREADS={advice} " in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(("cores", "load", "threads"), [(2, 0.2, 2), (2, 9.0, 1), (8, 3.0, 4), (1, 5.0, 1)])
def test_threads_with_cores_of_their_own_are_not_told_of(launched, machine, caplog, cores, load, threads):
    machine(cores, load, threads)
    warn_of_busy_cores(launched())
    assert not caplog.records


def test_threads_are_not_told_of_where_they_do_not_train_or_nobody_knows(launched, machine, caplog, monkeypatch):
    machine(2, 9.0, 2)
    warn_of_busy_cores(launched(device="cuda"))
    monkeypatch.delattr(os, "getloadavg")
    warn_of_busy_cores(launched())
    assert not caplog.records
