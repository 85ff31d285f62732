"""Tells a cache directory that cannot be written to from a file that cannot be read."""

import errno
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import datasets
from huggingface_hub import constants

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_cache_after_failure(error: Exception) -> None:
    """Find out whether data could not be read because a cache of `datasets` or of the Hub cannot be written to.

    Args:
        error: What was raised.

    Raises:
        OSError: If so; names the directory and the variables that set it.
    """
    caches = {"HF_DATASETS_CACHE": datasets.config.HF_DATASETS_CACHE, "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    for variable, cache in caches.items():
        try:
            if not Path(cache).is_dir():
                Path(cache).mkdir(parents=True)
            with TemporaryFile(dir=cache):
                pass
        except OSError as failure:
            raise _not_writable(variable, cache, failure) from error
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _FULL:
            raise _not_writable("HF_DATASETS_CACHE", caches["HF_DATASETS_CACHE"], cause) from error


def _not_writable(variable: str, cache: str | Path, failure: OSError) -> OSError:
    return OSError(
        f"{variable} must be a directory that can be written to, got {str(cache)!r} ({failure.strerror}). Set the variable "
        f"{variable}, or HF_HOME for all caches, to another directory."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
