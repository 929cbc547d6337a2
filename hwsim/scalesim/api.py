"""Whole runs: configuration and topology in, one report line per layer out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.errors import HwsimError
from hwsim.network.scalesim_topology import Kind, Topology, TopologyLayer, read_topology
from hwsim.scalesim import report
from hwsim.scalesim.config import Config, read_config
from hwsim.scalesim.engine import simulate_layer
from hwsim.scalesim.layout import LayerLayout, read_layout
from hwsim.scalesim.result import LayerReport

if TYPE_CHECKING:
    import pandas as pd

MAX_LAYERS = 1_000_000


def expand_depthwise(topology: Topology) -> tuple[TopologyLayer, ...]:
    """Layers as SCALE-Sim runs them: a convolution named ``...DP...`` becomes one single-channel layer per channel."""
    layers: list[TopologyLayer] = []
    for layer in topology.layers:
        if not layer.depthwise:
            layers.append(layer)
            continue
        if len(layers) + layer.channels > MAX_LAYERS:
            raise HwsimError(f"layer {layer.name!r}: splits into {layer.channels} layers; at most {MAX_LAYERS} are run")
        layers += [replace(layer, name=f"{layer.name}Channel_{i}", channels=1) for i in range(layer.channels)]
    return tuple(layers)


def simulate(config: Config, topology: Topology, layout: tuple[LayerLayout, ...] | None = None) -> list[LayerReport]:
    """Cost every layer of a parsed topology as SCALE-Sim 3.0 does.

    Raises HwsimError for templates with unset symbols, batches, Ramulator traces and whatever SCALE-Sim cannot run.
    """
    if topology.unresolved:
        symbols = ", ".join(topology.unresolved)
        raise HwsimError(f"topology {topology.name!r} is a template: give {symbols} a value (--symbol B=8)")
    user = config.mode == "USER"
    if user and config.ramulator:
        raise HwsimError(
            f"{config.source}, [run_presets] UseRamulatorTrace: needs latency files of a Ramulator run, which are not "
            "modelled; set it to False"
        )
    custom = [name for name in ("ifmap", "filter") if user and getattr(config, f"{name}_custom_layout")]
    if custom and not layout:
        raise HwsimError(f"{config.source}, [layout]: a custom {custom[0]} layout needs a layout file (-l)")
    if custom and config.ifmap_offset:
        raise HwsimError(f"{config.source}, IfmapOffset: custom layouts number addresses from 0; set it to 0")
    reports = []
    results: dict[TopologyLayer, LayerReport] = {}
    for layer in expand_depthwise(topology):
        if layer.batch != 1:
            raise HwsimError(f"layer {layer.name!r}: batch {layer.batch}, but SCALE-Sim runs a batch of 1 only")
        # Equal shapes cost the same; the layout file's first line serves every layer, as in the tool.
        shape = replace(layer, name="", line=0)
        if shape not in results:
            results[shape] = simulate_layer(config, layer, layout[0] if layout else None)
        reports.append(replace(results[shape], name=layer.name))
    return reports


def load(
    config: Config | str | Path,
    topology: Topology | str | Path,
    input_type: Kind | None = None,
    symbols: Mapping[str, int] | None = None,
) -> tuple[Config, Topology]:
    """Read what is given as a path; parsed objects pass through."""
    if input_type not in (None, "conv", "gemm"):
        raise HwsimError(f"input type {input_type!r}: expected conv or gemm")
    if not isinstance(config, Config):
        config = read_config(config)
    if not isinstance(topology, Topology):
        topology = read_topology(topology, kind=input_type, symbols=symbols)
    return config, topology


def run(
    config: Config | str | Path,
    topology: Topology | str | Path,
    *,
    input_type: Kind | None = None,
    layout: str | Path | None = None,
    symbols: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Run SCALE-Sim's model and return its reports as one DataFrame, one row per layer.

    Columns are those of COMPUTE_, BANDWIDTH_, DETAILED_ACCESS_ and (in sparse runs) SPARSE_REPORT.csv: cycles, words,
    words per cycle, %. ``input_type`` None recognises GEMM files by their header; ``layout`` is for custom ones.
    Raises HwsimError.
    """
    config, topology = load(config, topology, input_type, symbols)
    reports = simulate(config, topology, read_layout(layout) if layout else None)
    return report.to_frame(config, reports)


def write_reports(
    config: Config | str | Path,
    topology: Topology | str | Path,
    path: str | Path,
    *,
    input_type: Kind | None = None,
    layout: str | Path | None = None,
    symbols: Mapping[str, int] | None = None,
) -> Path:
    """Run SCALE-Sim's model and write its report files into ``path``/``run_name``; returns that folder.

    The files equal SCALE-Sim 3.0's byte for byte; all are written or none. Raises HwsimError.
    """
    config, topology = load(config, topology, input_type, symbols)
    reports = simulate(config, topology, read_layout(layout) if layout else None)
    return report.write_reports(config, reports, path)
