"""Run the tests with the lower bound of every package in pyproject.toml, in a virtual environment of their own.

python -m tests.lower_bounds [arguments of pytest]
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lower_bounds() -> list[str]:
    """Return the lower bounds as constraints for pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [requirement.replace(">=", "==") for group in groups for requirement in group if ">=" in requirement]


def main(arguments: Sequence[str]) -> int:
    """Build the environment and run pytest in it; returns its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\n".join(lower_bounds()))
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, "-e", ".[dev]"]
        subprocess.run(install, cwd=ROOT, check=True)
        return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
