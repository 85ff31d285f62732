"""Runs Python in a process that cannot import `hf_maskattn`, as on a machine where it is not installed."""

import os
import subprocess
import sys
import textwrap

WITHOUT_PACKAGE = "import sys; sys.modules['hf_maskattn'] = None\n"


def run_without_package(code, cwd):
    """Run `code` in the folder `cwd` and return what it printed; a failure fails the test with its output."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(cwd / "modules"), "TQDM_DISABLE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE + textwrap.dedent(code)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
