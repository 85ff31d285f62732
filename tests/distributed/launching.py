"""Launches two processes that train together on this CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "accelerate" / "two_cpu_processes.yaml"
SECONDS = 600


class Launch:
    """`accelerate launch` of a module. `output` is the output of all processes."""

    def __init__(self, folder, module, *arguments):
        self.path = folder / "output.txt"
        program = Path(sys.executable).with_name("accelerate")
        with self.path.open("w") as file:
            self.process = subprocess.Popen(
                [program, "launch", "--config_file", CONFIG, "-m", module, *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self):
        return self.path.read_text()

    def wait(self):
        """Wait for all processes and return the exit code of the launcher."""
        try:
            return self.process.wait(SECONDS)
        finally:
            self.end()

    def end(self):
        """End the launcher, which ends its processes when it is terminated, not when it is killed."""
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()

    def wait_for(self, text):
        """Wait until a process prints a text."""
        end = time.monotonic() + SECONDS
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > end:
                self.end()
                raise AssertionError(self.output)
            time.sleep(0.1)


def launch_commands(folder, commands):
    """Launch `run_commands`."""
    path = folder / "commands.json"
    path.write_text(json.dumps(commands))
    return Launch(folder, "tests.distributed.run_commands", path)
