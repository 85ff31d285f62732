"""Trackio: `training.report_to=trackio` of a recipe, without network.

CI does not install it, because it requires Pillow below 13.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.training.toy_recipe import write_recipe

pytest.importorskip("trackio")

TRAIN = """
import json, socket

def reject(self, address):
    if self.family != socket.AF_UNIX:
        raise AssertionError(f"a connection to {address}")

socket.socket.connect = reject

import trackio
from trackio.sqlite_storage import SQLiteStorage
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train

train(load_recipe("toy.yaml"))
trackio.finish()
print("LOGS", json.dumps(SQLiteStorage.get_logs("words", "toy")))
"""


@pytest.mark.slow
def test_named_run_is_one_curve_without_secrets(tmp_path):
    training = {"report_to": "trackio", "project": "words", "run_name": "toy", "output_dir": "run"}
    path = write_recipe(tmp_path, training=training)
    path.write_text(path.read_text().replace(f"{tmp_path}{os.sep}", ""))
    store = tmp_path / "store"
    environment = {**os.environ, "TRACKIO_DIR": str(store), "HF_TOKEN": "hf_not_to_be_written", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout.partition("LOGS ")[2])
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert [row["train/loss"] for row in rows if "train/loss" in row] == pytest.approx(losses)
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]["test"]
    assert [row["test/accuracy"] for row in rows if "test/accuracy" in row] == [scores["accuracy"]]
    written = b"".join(file.read_bytes() for file in store.rglob("*") if file.is_file())
    assert b"output_dir" in written
    assert b"hf_not_to_be_written" not in written
    assert str(tmp_path).encode() not in written
