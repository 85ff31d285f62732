"""torch's profiler without the lines that it writes into a progress bar."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.profiler import ProfilerActivity, profile


def profile_on_cpu(run: Callable[[], object], memory: bool = False) -> profile:
    """Profile a function on the CPU, with what it allocates if `memory` is set."""
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=memory) as profiler:
        run()
    return profiler


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send the file behind stderr away: native code writes past `sys.stderr`."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
