"""What several commands read and refuse alike: symbols, targets, places to write to."""

from __future__ import annotations

from hwsim.errors import HwsimError


def shapes(text: str) -> dict[str, int]:
    """Return symbols and their values from ``S=384,P=0``."""
    out: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, eq, value = (word.strip() for word in part.partition("="))
        if not (eq and key and value.isascii() and value.isdigit() and len(value) <= 15):
            raise HwsimError(f"--shapes {part!r}: write symbols and sizes as S=384,P=0")
        if key in out:
            raise HwsimError(f"--shapes: {key} is given twice")
        out[key] = int(value)
    return out


def target(target: str, host: str | None) -> str:
    """Return the target on another host, said apart."""
    if host is None:
        return target
    if "@" in target:
        raise HwsimError(f"--host {host}: {target} already names its host")
    base, star, count = target.partition("*")
    return f"{base}@{host}{star}{count}"


def output_files(*paths: str | None) -> None:
    """Refuse before the work is done what could not be written after it."""
    from hwsim.files import check_writable

    named = [path for path in paths if path is not None]
    files = ["-" if path == "-" else str(check_writable(path).absolute()) for path in named]
    twice = next((named[i] for i, file in enumerate(files) if file in files[:i]), None)
    if twice is not None:
        raise HwsimError(f"two outputs are to go to {twice}; give each its own file")
