"""Run the tests with the lower bound of every package in pyproject.toml, in a virtual environment of their own.

python -m tests.lower_bounds [arguments of pytest]

The environment is kept in the folder that `VERSIONS_CACHE` names, and otherwise built for each call.
It is installed by uv if that is on the path: in a minute, where pip takes many.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


def requirements() -> list[str]:
    """Return what the package and all of its extras require, other than the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [requirement for group in groups for requirement in group if not requirement.startswith(project["name"])]


def lower_bounds() -> list[str]:
    """Return the requirements with the lower bound of each, where it has one."""
    return [requirement.replace(">=", "==") for requirement in requirements()]


@contextmanager
def cache_folder() -> Iterator[Path]:
    """Yield the folder of the environments: that of `VERSIONS_CACHE`, or a temporary one."""
    if "VERSIONS_CACHE" in os.environ:
        yield Path(os.environ["VERSIONS_CACHE"]).absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def build_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Install packages into the virtual environment in a folder, which is made if it is missing; returns its interpreter."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = ["uv", "pip", "install", "--python", python] if shutil.which("uv") else [python, "-m", "pip", "install"]
    subprocess.run([*install, "--quiet", "--upgrade", *packages], check=True)
    return python


def main(arguments: Sequence[str]) -> int:
    """Build the environment and run pytest in it; returns its exit code."""
    with cache_folder() as folder:
        python = build_environment(folder / "oldest", [*lower_bounds(), "--editable", str(ROOT)])
        return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
