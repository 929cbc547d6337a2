"""Reading regular files only, and writing files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from hwsim.errors import HwsimError


def read_regular(path: Path) -> bytes:
    """Return the bytes of a file; raise OSError as reading does, and for a device or pipe, which could be read for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file")
    return path.read_bytes()


def check_writable(path: str | Path) -> Path:
    """Return ``path``, a link to a file followed, if a file could be written there; raise HwsimError saying why not."""
    if not isinstance(path, str | Path):
        raise HwsimError(f"{path!r} is no file name to write to")
    target = Path(path)
    try:
        if target.is_symlink() and target.is_file():
            target = target.resolve()
        if not str(path).strip() or not target.name or "\0" in str(path):
            raise HwsimError(f"{str(path)!r} is no file name to write to")
        if target.is_dir():
            raise HwsimError(f"{target}: is a folder; name a file in it")
        if not target.parent.is_dir():
            raise HwsimError(f"{target}: cannot be written (no folder {target.parent})")
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise HwsimError(f"{target}: cannot be written (permission denied)")
    except (OSError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise
        raise HwsimError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
    return target


def write_whole(path: str | Path, text: str | bytes) -> None:
    """Write ``text`` (or bytes as they are) to ``path`` completely or not at all; raise HwsimError when it cannot be written.

    A regular file is replaced in one step; a device or pipe (``/dev/stdout``) is written as it is.
    """
    target = check_writable(path)
    # Names in hostile files may hold half a surrogate pair.
    data = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        partial = target.with_name(target.name + ".partial")
        try:
            partial.write_bytes(data)
            partial.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HwsimError(f"{target}: cannot be written ({error.strerror or error})") from None
