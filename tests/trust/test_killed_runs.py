"""A run that is killed at any moment and resumed ends with the same bits as one that was not killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_end_like_uninterrupted_runs():
    """`python -m tests.killed_runs --trials 50` runs more of them."""
    command = [sys.executable, "-m", "tests.killed_runs", "--trials", "5", "--seed", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert "5 ended like an uninterrupted run, 0 did not" in last
    kills = int(last.split()[2])
    assert kills >= 5, done.stdout
