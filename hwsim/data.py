"""Where the data folders ``models/`` and ``accelerators/`` are: inside a wheel, or beside the package in a checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hwsim.errors import HwsimError


@cache
def data_root() -> Path:
    """Return the folder that holds ``models/`` and ``accelerators/``.

    A wheel carries them in ``hwsim/_data``; an sdist and an editable install have them beside the package. Raises
    HwsimError when neither is there (a broken installation).
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_data", package.parent):
        if (root / "accelerators").is_dir() and (root / "models").is_dir():
            return root
    raise HwsimError(f"the data folders models/ and accelerators/ are missing beside {package}; reinstall hwsim")


def accelerators_dir() -> Path:
    """Return the folder of the machine descriptions that ship with hwsim."""
    return data_root() / "accelerators"


def models_dir() -> Path:
    """Return the folder of the network traces that ship with hwsim."""
    return data_root() / "models"
