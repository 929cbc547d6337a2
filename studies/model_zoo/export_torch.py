"""Write the layer traces of networks defined in torchvision, timm, transformers and diffusers.

    python studies/model_zoo/export_torch.py [NAME ...] [--out models]

Models are built on the meta device: no weights are downloaded or allocated. Networks are exported at a batch that is a
large prime, and every number it divides becomes a multiple of N; those with a sequence length at several lengths, from
which `hwsim.network.symbolic` fits expressions of S.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from zoo_entries import ENTRIES, Entry

from hwsim.errors import HwsimError
from hwsim.network.dims import Shape, parse_dim
from hwsim.network.graph import Network
from hwsim.network.symbolic import symbolise
from hwsim.network.torch_import import from_torch
from hwsim.network.trace import parse_trace, write_trace

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = Path(__file__).with_name("published_torch.csv")
# A batch no other extent is a multiple of: every dimension it divides contains the batch.
PRIME = 100_003
# Sequence networks are exported at several lengths: primes that are no factor of any layer width.
FIRST = {"S": 13}
SECOND = {"S": 17}


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

    sizes = [k for k in symbols if k != "N"]
    net = (
        make(N=PRIME)
        if not sizes
        else symbolise(lambda **at: make(N=PRIME, **at), {k: FIRST[k] for k in sizes}, {k: SECOND[k] for k in sizes})
    )
    net = batched(net)
    layers = tuple(replace(la, name=_short(la.name, entry)) for la in net.layers)
    return replace(net, layers=layers, symbols=dict(symbols)).validate()


def batched(net: Network) -> Network:
    """The network made with batch `PRIME` with N in its place."""

    def number(hit: re.Match[str]) -> str:
        times, rest = divmod(int(hit[0]), PRIME)
        return hit[0] if rest else "N" if times == 1 else f"{times}*N"

    def fix(shape: Shape) -> Shape:
        return tuple(parse_dim(re.sub(r"[1-9][0-9]*", number, str(d))) for d in shape)

    inputs = tuple(replace(t, shape=fix(t.shape)) for t in net.inputs)
    layers = tuple(replace(la, shape=fix(la.shape)) for la in net.layers)
    return replace(net, inputs=inputs, layers=layers)


def _short(name: str, entry: Entry) -> str:
    """A layer's name without the wrapper's prefix."""
    name = name.removeprefix("m.")
    for long, short in entry.shorten:
        name = name.replace(long, short)
    return name


def published() -> dict[str, dict[str, dict[str, str]]]:
    """Published figures by network and quantity."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    with PUBLISHED.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["network"], {})[row["quantity"]] = row
    return found


def main() -> int:
    """Export the named networks (default: all) and print what each adds up to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=ROOT / "models")
    parser.add_argument("--missing", action="store_true", help="only networks without a trace")
    options = parser.parse_args()
    known = {e.name: e for e in ENTRIES}
    figures = published()
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
        meta: dict[str, str] = {
            "task": entry.task,
            "source": f"{entry.source()} through torch.export {torch.__version__}",
        }
        meta["licence"] = f"{entry.licence} (definition; no weights)"
        if entry.assumed:
            meta["assumed"] = entry.assumed
        if entry.context:
            meta["context"] = entry.context
        for quantity, row in figure.items():
            note = f", {row['note']}" if row["note"] else ""
            meta[f"published_{quantity}"] = f"{row['value']} ({row['source']}{note})"
        net = net.rename(name, meta)
        write_trace(net, target)
        back = parse_trace(target.read_text(encoding="utf-8"), str(target))
        stated = " ".join(f"{q}={r['value']}" for q, r in figure.items())
        size, spent = target.stat().st_size / 1e3, time.process_time() - start
        print(
            f"{name}: {len(net.layers)} layers, macs={back.macs} params={back.params} published: {stated or 'nothing'}",
            end="",
        )
        print(f" ({size:.1f} kB, {spent:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
