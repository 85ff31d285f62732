"""Runs Python with the real client libraries, in a clean process that takes the loopback Hub for the Hub."""

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
    hub: Hub,
    code: str,
    folder: Path,
    *,
    token: str | None = None,
    package: bool = True,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, and return how it ended, whatever that is.

    Args:
        hub: The Hub.
        code: Python code.
        folder: Where it runs; its `HF_HOME` is in there too, so that a second run in the same folder finds a warm cache.
        token: What `HF_TOKEN` is; None for nobody.
        package: Whether `hf_maskattn` can be imported.
        **environment: Further variables, such as `HF_HUB_OFFLINE="1"`.
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
    """Run blocks of code that call `attempt(name, action)`; return by name what the actions gave or raised, as `Type: text`.

    Args:
        hub: The Hub.
        folder: Where they run, one after the other in one process.
        *blocks: Python code, each with an indentation of its own.
        **settings: As in `run_client`.
    """
    code = "".join(map(textwrap.dedent, [ATTEMPT, *blocks, "\nprint()\nprint(json.dumps(found))\n"]))
    done = run_client(hub, code, folder, **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
