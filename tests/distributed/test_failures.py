import re
import signal
import time
from pathlib import Path

import pytest

from tests.distributed.launching import Launch, launch_commands
from tests.training.toy_recipe import write_recipe

pytestmark = pytest.mark.multiprocess

MAX_SECONDS = 60
"""Seconds, on a busy machine. A process that waits for another one would wait half an hour."""


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path, training={"logging_steps": 1, "num_train_epochs": 300, "eval_strategy": "no"})


def test_recipe_error_is_reported_once(tmp_path, recipe):
    launch = Launch(tmp_path, "hf_maskattn.cli", "train", recipe, "data.label_column=lable")
    assert launch.wait() != 0
    printed, launcher, report = launch.output.partition("Sending process")
    assert launcher
    assert printed.count("did you mean 'label'?") == 1
    assert "Traceback" not in printed
    assert "hf_maskattn/" not in report, "a traceback of ours"
    assert report.count("did you mean 'label'?") == 1
    assert re.search(r"Root Cause .*\n( .*\n|\[.*\n)* +traceback : error: .*did you mean 'label'\?.*\n=+\s*$", report)


def test_failure_of_one_process_is_reported_once_and_ends_all(tmp_path, recipe):
    launch = launch_commands(tmp_path, [{"arguments": ["train", str(recipe)], "at_step": ["fail", 3, 1]}])
    launch.wait_for("process 1: error: this row is broken")
    started = time.monotonic()
    assert launch.wait() != 0
    assert time.monotonic() - started < MAX_SECONDS
    printed, _, report = launch.output.partition("Sending process")
    assert printed.count("this row is broken") == report.count("this row is broken") == 1
    assert "Connection closed" not in launch.output


def test_interrupt_saves_a_checkpoint_and_ends_all(tmp_path, recipe):
    launch = Launch(tmp_path, "hf_maskattn.cli", "train", recipe)
    launch.wait_for("train loss")
    launch.process.send_signal(signal.SIGINT)
    launch.wait_for("Stopped. The checkpoint is")
    started = time.monotonic()
    assert launch.wait() != 0
    assert time.monotonic() - started < MAX_SECONDS
    assert launch.output.count("Stopped. ") == launch.output.count("Saving a checkpoint before stopping") == 1
    checkpoint = Path(re.search(r"checkpoint is (\S+/checkpoint-\d+)", launch.output)[1])
    assert {"rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"} <= {path.name for path in checkpoint.iterdir()}
