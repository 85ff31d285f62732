"""Run Python with the real client libraries and the loopback Hub, in a clean process."""

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from tests.clean_process import run_clean
from tests.hub.server import Hub

ATTEMPT = """
import json
found = {}
def attempt(name, action):
    try:
        found[name] = action()
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
"""


def run_client(
    hub: Hub, code: str, folder: Path, *, token: str | None = None, package: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process, and return the completed process, whatever its exit code is.

    Args:
        hub: The Hub.
        code: Python code.
        folder: Working directory, which also contains `HF_HOME`: a second run in it has a warm cache.
        token: Value of `HF_TOKEN`, None for an anonymous client.
        package: Whether `hf_maskattn` can be imported.
        **environment: Further environment variables, such as `HF_HUB_OFFLINE="1"`.
    """
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf_home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
        **({} if token is None else {"HF_TOKEN": token}),
        **environment,
    }
    return run_clean(code, folder, package=package, environment=settings)


def findings(hub: Hub, folder: Path, *blocks: str, **settings: Any) -> dict[str, Any]:
    """Run code that calls `attempt(name, action)`. Return by name what each action returned or, as `Type: text`, raised.

    Args:
        hub: The Hub.
        folder: Working directory.
        *blocks: Python code to run in one process, each with its own indentation.
        **settings: As in `run_client`.
    """
    code = "".join(map(textwrap.dedent, [ATTEMPT, *blocks, "\nprint()\nprint(json.dumps(found))\n"]))
    done = run_client(hub, code, folder, **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
