"""hwsim: cycle-level models of neural-network accelerators that explain their answers."""

from __future__ import annotations

__version__ = "0.1.0"
