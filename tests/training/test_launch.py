"""Checks of train.py of how a process was launched."""

import logging
import os
from types import SimpleNamespace

import pytest
import torch

from hf_maskattn.training.train import check_launch, warn_of_busy_cores


@pytest.fixture
def launched(monkeypatch):
    """Sets the variables of a launcher and returns the Trainer arguments of one of its processes."""

    def arrange(world_size=1, device="cpu", **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return SimpleNamespace(world_size=world_size, device=torch.device(device))

    return arrange


def test_single_process_is_accepted(launched, caplog):
    check_launch(launched())
    assert not caplog.text


def test_joined_processes_are_accepted(launched, caplog):
    check_launch(launched(world_size=2, WORLD_SIZE="2", MASTER_PORT="1"))
    check_launch(launched(world_size=2, device="cuda", WORLD_SIZE="2", MASTER_PORT="1", ACCELERATE_USE_FSDP="true"))
    assert not caplog.text


def test_processes_that_would_train_alone_raise(launched):
    with pytest.raises(ValueError, match=r"training\.use_cpu must be true to train with 2 processes"):
        check_launch(launched(world_size=1, WORLD_SIZE="2"))


@pytest.mark.parametrize(("variable", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")])
def test_sharding_on_cpus_raises(launched, variable, name):
    with pytest.raises(ValueError, match=f"{name} is not supported on CPUs"):
        check_launch(launched(world_size=2, WORLD_SIZE="2", **{variable: "true"}))


def test_sharded_state_dict_raises(launched):
    variables = {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}
    with pytest.raises(ValueError, match="fsdp_state_dict_type must be FULL_STATE_DICT"):
        check_launch(launched(world_size=2, device="cuda", **variables))


def test_single_process_of_a_cpu_launch_is_reported(launched, caplog):
    with caplog.at_level(logging.WARNING):
        check_launch(launched(MASTER_PORT="29500", ACCELERATE_USE_CPU="True"))
    assert "started a single process, because it needs mpirun" in caplog.text


@pytest.fixture
def machine(monkeypatch):
    """Sets the number of cores, their load, and the number of threads of torch."""

    def arrange(cores, load, threads):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    return arrange


@pytest.mark.parametrize(
    ("cores", "load", "threads", "advice"),
    [(2, 2.0, 2, 1), (2, 1.0, 2, 1), (2, 7.5, 2, 1), (8, 8.0, 4, 1), (8, 6.0, 4, 2), (64, 3.0, 64, 61)],
)
def test_busy_cores_are_reported(launched, machine, caplog, cores, load, threads, advice):
    machine(cores, load, threads)
    warn_of_busy_cores(launched())
    (record,) = caplog.records
    assert f"OMP_NUM_THREADS={advice} " in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(("cores", "load", "threads"), [(2, 0.2, 2), (2, 9.0, 1), (8, 3.0, 4), (1, 5.0, 1)])
def test_idle_cores_are_not_reported(launched, machine, caplog, cores, load, threads):
    machine(cores, load, threads)
    warn_of_busy_cores(launched())
    assert not caplog.records


def test_busy_cores_are_not_reported_with_a_gpu_or_unknown_load(launched, machine, caplog, monkeypatch):
    machine(2, 9.0, 2)
    warn_of_busy_cores(launched(device="cuda"))
    monkeypatch.delattr(os, "getloadavg")
    warn_of_busy_cores(launched())
    assert not caplog.records
