"""SCALE-Sim 3.0's numbers from SCALE-Sim's own files, quirks included, several thousand times faster.

An isolated leaf: nothing else in hwsim depends on it. ``docs/scalesim.md`` lists every quirk and what ``hwsim run``
does instead.
"""

from __future__ import annotations

from hwsim.network.scalesim_topology import Topology, TopologyLayer, parse_topology, read_topology
from hwsim.scalesim.api import run, simulate, write_reports
from hwsim.scalesim.config import Config, parse_config, read_config
from hwsim.scalesim.result import LayerReport

__all__ = [
    "Config",
    "LayerReport",
    "Topology",
    "TopologyLayer",
    "parse_config",
    "parse_topology",
    "read_config",
    "read_topology",
    "run",
    "simulate",
    "write_reports",
]
