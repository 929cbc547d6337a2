"""SCALE-Sim configuration files (INI): every key of version 3.0, with its defaults where a section is missing."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from hwsim.errors import HwsimError, near
from hwsim.files import read_regular

Dataflow = Literal["os", "ws", "is"]
BandwidthMode = Literal["CALC", "USER"]
SparseRep = Literal["csr", "csc", "ellpack_block"]

MAX_FILE_BYTES = 1 << 20
_INTEGER = re.compile(r"-?\d{1,18}")


@dataclass(frozen=True, slots=True)
class Config:
    """A SCALE-Sim architecture and run description; sizes in kB of 1024 one-byte words, bandwidths in words per cycle.

    ``notes`` lists what was missing from the file and which default took its place (those of SCALE-Sim's
    ``scale_config``).
    """

    run_name: str = "scale_run"
    array_h: int = 4
    array_w: int = 4
    ifmap_sram_kb: int = 256
    filter_sram_kb: int = 256
    ofmap_sram_kb: int = 128
    ifmap_offset: int = 0
    filter_offset: int = 10_000_000
    ofmap_offset: int = 20_000_000
    dataflow: Dataflow = "ws"
    mode: BandwidthMode = "CALC"
    bandwidths: tuple[int, ...] = (10,)
    ramulator: bool = False
    ifmap_custom_layout: bool = False
    ifmap_bank_bandwidth: int = 10
    ifmap_bank_num: int = 10
    ifmap_bank_port: int = 2
    filter_custom_layout: bool = False
    filter_bank_bandwidth: int = 10
    filter_bank_num: int = 10
    filter_bank_port: int = 2
    sparsity: bool = False
    sparse_rep: SparseRep = "ellpack_block"
    optimized_mapping: bool = False
    block_size: int = 4
    seed: int = 40
    source: str = "config"
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(slots=True)
class _Section:
    source: str
    name: str
    values: dict[str, str]
    notes: list[str]
    present: bool

    def fail(self, key: str, why: str) -> HwsimError:
        return HwsimError(f"{self.source}, [{self.name}] {key}: {why}")

    def text(self, key: str, default: str | None = None) -> str:
        found = self.values.get(key.lower())
        if found is None:
            if default is None:
                hint = near(key.lower(), self.values)
                raise self.fail(key, f"missing{hint}")
            if self.present:
                self.notes.append(f"[{self.name}] {key} is missing: {default or 'nothing'} assumed")
            return default
        return found.strip()

    def integer(self, key: str, default: int | None = None, low: int = 1, high: int = 10**9) -> int:
        text = self.text(key, None if default is None else str(default))
        if not _INTEGER.fullmatch(text):
            raise self.fail(key, f"expected a whole number, found {_shown(text)}")
        value = int(text)
        if not low <= value <= high:
            raise self.fail(key, f"{value} is outside {low} … {high}")
        return value

    def choice(self, key: str, options: tuple[str, ...], default: str | None = None) -> str:
        text = self.text(key, default)
        if text not in options:
            hint = near(text, options) if len(text) < 80 else ""
            raise self.fail(key, f"expected {' or '.join(options)}, found {_shown(text)}{hint}")
        return text

    def boolean(self, key: str, default: bool = False) -> bool:
        text = self.text(key, str(default)).lower()
        if text not in _BOOLEANS:
            raise self.fail(key, f"expected True or False, found {_shown(text)}")
        return _BOOLEANS[text]


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KNOWN_SECTIONS = ("general", "architecture_presets", "layout", "sparsity", "run_presets", "network_presets")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def read_config(path: str | Path) -> Config:
    """Read a SCALE-Sim ``.cfg`` file; see :func:`parse_config`. Raises HwsimError."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise HwsimError(f"{path}: larger than the {MAX_FILE_BYTES >> 20} MiB a configuration may have")
        raw = read_regular(path)
    except (OSError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HwsimError(f"cannot read configuration {_shown(str(path))}: {reason}") from None
    return parse_config(raw.decode("utf-8", errors="replace"), source=str(path))


def parse_config(text: str, *, source: str = "config") -> Config:
    """Parse the text of a SCALE-Sim configuration.

    Sections ``[layout]`` and ``[sparsity]`` and single keys that SCALE-Sim's own reader insists on may be missing; the
    array, the dataflow and the SRAM sizes may not. Raises HwsimError naming file, section and key.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text.lstrip("\ufeff"))
    except configparser.Error as error:
        raise HwsimError(f"{source}: not an INI file: {' '.join(str(error).split())[:200]}") from None
    sections = {name.lower(): name for name in parser.sections()}
    notes: list[str] = []

    def section(name: str) -> _Section:
        present = name in sections
        values = {k.lower(): v or "" for k, v in parser.items(sections[name])} if present else {}
        if not present:
            notes.append(f"section [{name}] is missing: its defaults are assumed")
        return _Section(source, name, values, notes, present)

    if "architecture_presets" not in sections:
        hint = near("architecture_presets", sections) if sections else ""
        raise HwsimError(f"{source}: no section [architecture_presets]{hint}")
    general, arch, run = section("general"), section("architecture_presets"), section("run_presets")
    layout, sparse = section("layout"), section("sparsity")

    mode = cast(BandwidthMode, run.choice("InterfaceBandwidth", ("CALC", "USER"), "CALC"))
    config = Config(
        run_name=_run_name(general),
        array_h=arch.integer("ArrayHeight", high=1 << 16),
        array_w=arch.integer("ArrayWidth", high=1 << 16),
        ifmap_sram_kb=arch.integer("IfmapSramSzkB", high=1 << 30),
        filter_sram_kb=arch.integer("FilterSramSzkB", high=1 << 30),
        ofmap_sram_kb=arch.integer("OfmapSramSzkB", high=1 << 30),
        ifmap_offset=arch.integer("IfmapOffset", 0, low=0, high=1 << 40),
        filter_offset=arch.integer("FilterOffset", 10_000_000, low=0, high=1 << 40),
        ofmap_offset=arch.integer("OfmapOffset", 20_000_000, low=0, high=1 << 40),
        dataflow=cast(Dataflow, arch.choice("Dataflow", ("os", "ws", "is"))),
        mode=mode,
        bandwidths=_bandwidths(arch, mode),
        ramulator=run.boolean("UseRamulatorTrace"),
        ifmap_custom_layout=layout.boolean("IfmapCustomLayout"),
        ifmap_bank_bandwidth=layout.integer("IfmapSRAMBankBandwidth", 10, high=1 << 24),
        ifmap_bank_num=layout.integer("IfmapSRAMBankNum", 10, high=1 << 24),
        ifmap_bank_port=layout.integer("IfmapSRAMBankPort", 2, high=1 << 24),
        filter_custom_layout=layout.boolean("FilterCustomLayout"),
        filter_bank_bandwidth=layout.integer("FilterSRAMBankBandwidth", 10, high=1 << 24),
        filter_bank_num=layout.integer("FilterSRAMBankNum", 10, high=1 << 24),
        filter_bank_port=layout.integer("FilterSRAMBankPort", 2, high=1 << 24),
        sparsity=sparse.boolean("SparsitySupport"),
        sparse_rep=cast(SparseRep, sparse.choice("SparseRep", ("csr", "csc", "ellpack_block"), "ellpack_block")),
        optimized_mapping=sparse.boolean("OptimizedMapping"),
        block_size=sparse.integer("BlockSize", 4, high=1 << 16),
        seed=sparse.integer("RandomNumberGeneratorSeed", 40, low=0, high=2**32 - 1),
        source=source,
        notes=tuple(notes),
    )
    if config.sparsity and config.optimized_mapping and config.block_size > config.array_h:
        raise sparse.fail("BlockSize", f"{config.block_size} is larger than ArrayHeight {config.array_h}")
    return config


def _run_name(general: _Section) -> str:
    name = general.text("run_name", "scale_run") or "scale_run"
    # The name becomes a folder under the output path; it must not lead out of it.
    if not re.fullmatch(r"[\w .+=@,()-]{1,200}", name) or name.strip(". ") == "":
        raise general.fail(
            "run_name", f"{_shown(name)} is not usable as a folder name (letters, digits, _ - . and blanks)"
        )
    return name


def _bandwidths(arch: _Section, mode: BandwidthMode) -> tuple[int, ...]:
    text = arch.text("Bandwidth", "10" if mode == "CALC" else None)
    parts = [p.strip() for p in text.split(",") if p.strip()]
    if mode == "CALC" and not all(_INTEGER.fullmatch(p) for p in parts):
        return (10,)  # CALC never reads it
    values = []
    for part in parts[:64]:
        if not _INTEGER.fullmatch(part) or not 1 <= int(part) <= 10**9:
            raise arch.fail("Bandwidth", f"expected words per cycle (1 … 10^9), found {_shown(part)}")
        values.append(int(part))
    if not values:
        raise arch.fail("Bandwidth", "empty; expected words per cycle, e.g. 10")
    return tuple(values)
