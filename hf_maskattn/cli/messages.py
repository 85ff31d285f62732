"""What the log says goes to stderr, as plain lines."""

import logging

from hf_maskattn.cli.processes import is_first_process


def show_messages() -> None:
    """Show what this package logs (in one process of several), and hide progress bars of what takes no time."""
    from transformers.utils import logging as transformers_logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("hf_maskattn")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if is_first_process() else logging.ERROR)
    transformers_logging.disable_progress_bar()
