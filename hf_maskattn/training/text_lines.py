"""Lines of text, from a file or from stdin."""

from pathlib import Path
from typing import BinaryIO


def lines_of_file(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8; names the line.
    """
    return _lines(path.read_bytes(), str(path))


def lines_of_stream(stream: BinaryIO) -> list[str]:
    """Read the lines of a UTF-8 stream; see `lines_of_file`."""
    return _lines(stream.read(), "stdin")


def _lines(content: bytes, origin: str) -> list[str]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{origin}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save the text as UTF-8."
        ) from error
    # Not splitlines(), which would cut at characters that are part of a text, such as U+2028.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
