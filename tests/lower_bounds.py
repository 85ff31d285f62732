"""The lower bound of every package in pyproject.toml, as constraints for pip.

pip install -c <(python -m tests.lower_bounds) -e ".[dev]" && pytest
"""

import tomllib
from pathlib import Path


def lower_bounds() -> list[str]:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [requirement.replace(">=", "==") for group in groups for requirement in group if ">=" in requirement]


if __name__ == "__main__":
    print(*lower_bounds(), sep="\n")
