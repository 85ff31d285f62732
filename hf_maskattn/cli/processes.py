"""Which of the processes that a launcher started speaks."""

import json
import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

_SECONDS_TO_BE_ENDED = 30.0


def is_first_process() -> bool:
    """Tell whether this process is the only one or the first of its run."""
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Tell whether a launcher started several processes."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def let_the_first_to_fail_speak() -> None:
    """Return in the process that fails first, and wait to be ended in any other one.

    The others fail for the same reason, or because one is gone; their launcher ends them with the first one. Which one is first
    they find out from the store of torchrun and `accelerate launch`, which outlives them. Under another launcher all return.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    from torch.distributed import TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=_SECONDS_TO_BE_ENDED))
    if store.add(f"hf_maskattn/failed/{os.environ['TORCHELASTIC_RESTART_COUNT']}", 1) > 1:
        time.sleep(_SECONDS_TO_BE_ENDED)


def name_the_cause_to_the_launcher(text: str) -> None:
    """Have the report of a failed run, in which torchrun and `accelerate launch` end, close with what this process said.

    Without it the report says "To enable traceback see ..."; with the exception itself it would print our traceback.

    Args:
        text: The line.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is not None:
        message = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):  # the line itself was printed
            Path(path).write_text(json.dumps({"message": message}), encoding="utf-8")
