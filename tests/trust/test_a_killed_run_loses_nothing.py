"""Law: a run that is killed at any moment and resumed ends, bit for bit, as one that was not killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
def test_five_runs_that_are_killed_end_as_if_nobody_had_killed_them():
    """The full form is `python -m tests.killed_runs --trials 50`."""
    command = [sys.executable, "-m", "tests.killed_runs", "--trials", "5", "--seed", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert "5 ended as if nobody had killed them, 0 did not" in last
    kills = int(last.split()[2])
    assert kills >= 5, done.stdout
