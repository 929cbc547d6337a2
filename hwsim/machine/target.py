"""The target grammar ``NAME[:MODE][@HOST[:MODE][/LINK]][*COUNT]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hwsim.errors import HwsimError

_GRAMMAR = re.compile(
    r"(?P<name>[^:@*\n]{1,200})"
    r"(?::(?P<mode>[A-Za-z0-9][\w.+-]{0,63}))?"
    r"(?:@(?P<host>[A-Za-z0-9][\w.+-]{0,63}(?::[A-Za-z0-9][\w.+-]{0,63})?)(?:/(?P<link>[A-Za-z0-9][\w.+-]{0,63}))?)?"
    r"(?:\*(?P<count>[1-9]\d{0,5}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target: the machine's name, mode, host, link and number of boards ("" means the default)."""

    name: str
    mode: str = ""
    host: str = ""
    link: str = ""
    count: int = 1

    def __str__(self) -> str:
        mode = f":{self.mode}" if self.mode else ""
        link = f"/{self.link}" if self.link else ""
        host = f"@{self.host}{link}" if self.host else ""
        return f"{self.name}{mode}{host}" + (f"*{self.count}" if self.count > 1 else "")


def parse_target(text: str) -> Target:
    """Return the parts of a target; raises HwsimError when the text does not follow the grammar."""
    match = _GRAMMAR.fullmatch(text.strip())
    if match is None:
        shown = repr(text if len(text) <= 60 else text[:57] + "...")
        raise HwsimError(
            f"target {shown} is not NAME[:MODE][@HOST[:MODE][/LINK]][*COUNT], e.g. tpu-v4*8 or tpu-v1:mode@host/link"
        )
    part = match.groupdict()
    return Target(
        part["name"].strip(), part["mode"] or "", part["host"] or "", part["link"] or "", int(part["count"] or 1)
    )
