"""Results that take long to compute, such as teacher logits, kept on disk between runs, below the cache of Hugging Face."""

import hashlib
import shutil
from pathlib import Path

from huggingface_hub.constants import HF_HOME


def cache_folder(kind: str, key: str) -> Path:
    """Return the folder of a cached result, which is not created; its key is the `fingerprint` of what it depends on."""
    return Path(HF_HOME) / "hf_maskattn" / kind / key


def fingerprint(*parts: str | bytes | Path) -> str:
    """Return a hash of strings, bytes and the contents of files, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                content = hashlib.file_digest(file, "sha256")
        else:
            content = hashlib.sha256(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
        digest.update(content.digest())
    return digest.hexdigest()


def check_free_space(folder: Path, num_bytes: int, purpose: str) -> None:
    """Check that the disk of a folder, which need not exist, has space for a result of `num_bytes` before it is computed.

    Raises:
        OSError: If there is too little space. The message begins with `purpose`.
    """
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise OSError(
            f"{purpose} needs {num_bytes / 2**20:,.0f} MiB in {folder}, got {free / 2**20:,.0f} MiB of free space. Free some "
            "space, or set HF_HOME to a folder on another disk."
        )
