"""Run Python code in a subprocess without settings of the Hub, with or without `hf_maskattn`."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

WITHOUT_PACKAGE = "import sys; sys.modules['hf_maskattn'] = None\n"


def run_clean(
    code: str, cwd: Path, *, package: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `code` in the folder `cwd`; a failure does not raise.

    Args:
        code: Python code.
        cwd: Folder to run in.
        package: Whether `hf_maskattn` can be imported.
        environment: Variables to add. The variables of the Hub (`HF_...`) of this process are removed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    return subprocess.run(
        [sys.executable, "-c", ("" if package else WITHOUT_PACKAGE) + textwrap.dedent(code)],
        cwd=cwd,
        env={**inherited, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_without_package(code: str, cwd: Path) -> str:
    """Run `code` without `hf_maskattn` and return its output; a failure fails the test."""
    environment = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(cwd / "modules")}
    result = run_clean(code, cwd, package=False, environment=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout
