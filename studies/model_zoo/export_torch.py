"""Write the layer traces of networks defined in torchvision, timm, transformers and diffusers.

    python studies/model_zoo/export_torch.py [NAME ...] [--out models]

Models are built on the meta device: no weights are downloaded or allocated. Every network is exported at several batch
(and sequence) sizes; `hwsim.network.symbolic` turns the differing dimensions into expressions of N and S.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from zoo_entries import ENTRIES, Entry

from hwsim.errors import HwsimError
from hwsim.network.graph import Network
from hwsim.network.symbolic import symbolise
from hwsim.network.torch_import import from_torch
from hwsim.network.trace import parse_trace, write_trace

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "tests" / "data" / "zoo_torch_published.csv"
# Sizes to export at: primes that are no factor of any layer width, so that no dimension matches by accident.
FIRST = {"N": 5, "S": 13, "P": 11}
SECOND = {"N": 7, "S": 17, "P": 19}


def export(entry: Entry) -> Network:
    """Return the symbolic network of one entry."""
    try:
        with torch.device("meta"):
            module = entry.build()
    except NotImplementedError:  # a definition that computes its widths with tensors
        module = entry.build().to("meta")
    module.eval()
    symbols = entry.symbols

    def make(**sizes: int) -> Network:
        with torch.device("meta"):
            return from_torch(module, args=entry.args(**sizes), name=entry.name)

    net = symbolise(make, {k: FIRST[k] for k in symbols}, {k: SECOND[k] for k in symbols})
    layers = tuple(replace(la, name=_short(la.name, entry)) for la in net.layers)
    return replace(net, layers=layers, symbols=dict(symbols)).validate()


def _short(name: str, entry: Entry) -> str:
    """A layer's name without the wrapper's prefix."""
    name = name.removeprefix("m.")
    for long, short in entry.shorten:
        name = name.replace(long, short)
    return name


def published() -> dict[str, dict[str, str]]:
    """Published multiply-accumulates and parameters by network."""
    with PUBLISHED.open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(line for line in file if not line.startswith("#"))}


def main() -> int:
    """Export the named networks (default: all) and print what each adds up to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=ROOT / "models")
    parser.add_argument("--missing", action="store_true", help="only networks without a trace")
    options = parser.parse_args()
    known = {e.name: e for e in ENTRIES}
    figures = published() if PUBLISHED.exists() else {}
    failed = 0
    for name in options.names or list(known):
        target = options.out / f"{name}.layers.csv"
        if options.missing and target.exists():
            continue
        entry = known[name]
        start = time.process_time()
        try:
            net = export(entry)
        except (HwsimError, RuntimeError, AttributeError, TypeError, ValueError) as error:
            failed += 1
            print(f"{name}: FAILED {type(error).__name__}: {error}", flush=True)
            continue
        figure = figures.get(name, {})
        meta = {"task": entry.task, "source": f"{entry.source()} through torch.export {torch.__version__}"}
        meta["licence"] = f"{entry.licence} (definition; no weights)"
        if entry.assumed:
            meta["assumed"] = entry.assumed
        if figure:
            meta["published_macs"] = f"{figure['gmacs']} G" if figure["gmacs"] else "none"
            meta["published_params"] = figure["params"] or "none"
            meta["published_source"] = figure["source"]
        net = net.rename(name, meta)
        write_trace(net, target)
        back = parse_trace(target.read_text(encoding="utf-8"), str(target))
        print(
            f"{name}: {len(net.layers)} layers, {back.macs / 1e9:.4f} GMAC ({figure.get('gmacs', '?')}), {back.params} parameters"
            f" ({figure.get('params', '?')}), {target.stat().st_size / 1e3:.1f} kB, {time.process_time() - start:.0f} s",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
