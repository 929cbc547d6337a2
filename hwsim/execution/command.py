"""``hwsim execute``, ``hwsim verify`` and ``hwsim numerics``: values from the command line."""

from __future__ import annotations

import argparse
import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arguments import shapes
from hwsim.errors import HwsimError
from hwsim.files import check_writable, write_whole

Array = npt.NDArray[Any]


def _add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument("network", help="a zoo name, or a .layers.csv, .onnx or .tflite file")
    parser.add_argument(
        "--on",
        required=True,
        metavar="TARGET",
        help="an accelerator, a Tensor Core device such as a100, or exact / fp32",
    )
    if command == "numerics":
        parser.add_argument(
            "--precisions", required=True, metavar="A,B,…", help="precisions to set side by side: bf16,fp16"
        )
    else:
        parser.add_argument("--precision", help="bf16, fp16, tf32 …, or per layer: bf16,fc*=fp16")
        parser.add_argument(
            "--semantics", default="tflite-reference", metavar="NAME",
            help="whose integers a .tflite file means: tflite-reference, tflite-optimized, xnnpack, tflm",
        )  # fmt: skip
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--shapes", default="", metavar="S=384,…", help="values of further symbols")
    parser.add_argument("--seed", type=int, default=0, help="of random inputs, and of weights where the file has none")
    parser.add_argument("--inputs", metavar="FILE.npz", help="arrays by input name (default: random)")
    if command == "execute":
        parser.add_argument("--output", metavar="FILE.npz", help="write the outputs as arrays")
        parser.add_argument("--intermediates", action="store_true", help="write every layer's result too")
    else:
        parser.add_argument("--json", metavar="FILE", help="write the verdict as JSON (- for standard output)")


add_arguments_of_execute = partial(_add_arguments, command="execute")
add_arguments_of_verify = partial(_add_arguments, command="verify")
add_arguments_of_numerics = partial(_add_arguments, command="numerics")


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """What the three commands are told alike."""
    inputs = _read(args.inputs) if args.inputs else None
    return {"inputs": inputs, "seed": args.seed, "batch": args.batch, "shapes": shapes(args.shapes)}


def main_of_execute(args: argparse.Namespace) -> int:
    """Run a network with values and show its outputs; return the exit code."""
    from hwsim.execution.run import execute

    target = None if args.output is None else check_writable(args.output)
    made = execute(
        args.network, args.on, precision=args.precision, semantics=args.semantics, intermediates=args.intermediates,
        **_given(args),
    )  # fmt: skip
    print(f"{args.network} as {made.arithmetic} ({made.evidence})")
    for name, value in made.outputs.items():
        flat = value.reshape(-1)
        shown = " ".join(f"{v:.6g}" for v in flat[:6])
        more = " …" if flat.size > 6 else ""
        print(f"  {name}: {value.dtype}{list(value.shape)}  {shown}{more}")
        if value.ndim and value.dtype.kind in "fiu" and value.shape[-1] > 1:
            print(f"    largest at {int(np.argmax(flat[: value.shape[-1]]))} of the first row")
    for note in made.notes:
        print(f"  note: {note}")
    if target is not None:
        inside = {f"inside/{k}": np.asarray(v) for k, v in made.intermediates.items()}
        _write(target, {**{k: np.asarray(v) for k, v in made.outputs.items()}, **inside})
        print(f"wrote {args.output}")
    return 0


def main_of_verify(args: argparse.Namespace) -> int:
    """Compare values with the oracle and show the verdict; the exit code is 1 where they differ."""
    from dataclasses import asdict

    from hwsim.execution.verification import verify

    found = verify(args.network, args.on, precision=args.precision, semantics=args.semantics, **_given(args))
    _report(args.json, found.text(), asdict(found))
    return 1 if found.different else 0


def main_of_numerics(args: argparse.Namespace) -> int:
    """Show what each precision costs, layer by layer; return the exit code."""
    from dataclasses import asdict

    from hwsim.execution.numerics_report import numerics
    from hwsim.report.table import clip, table

    names = [p.strip() for p in args.precisions.split(",") if p.strip()]
    if not names:
        raise HwsimError("--precisions names none; write e.g. bf16,fp16")
    found = numerics(args.network, args.on, names, **_given(args))
    lines = []
    for one in found:
        worst = one.worst
        lines.append(f"{one.precision}: hurts most in {worst.label or worst.layer} (loses {worst.loss_db:.1f} dB)")
    head = ("layer", *(f"{one.precision} {c}" for one in found for c in ("SNR dB", "over", "under")))
    cells = []
    for i, layer in enumerate(found[0].layers):
        row = [clip(layer.label or layer.layer, 40)]
        for one in found:
            la = one.layers[i]
            row += [f"{la.snr_db:.1f}", str(la.overflow + la.saturated + la.not_finite), str(la.underflow)]
        cells.append(row)
    _report(args.json, "\n".join([*lines, "", table(head, cells)]), [asdict(one) for one in found])
    return 0


def _report(path: str | None, text: str, data: Any) -> None:
    rendered = json.dumps(data, indent=1, default=float) if path is not None else ""
    if path == "-":
        print(rendered)
        return
    print(text)
    if path is not None:
        write_whole(path, rendered + "\n")
        print(f"wrote {path}")


def _read(path: str) -> dict[str, Array]:
    """Arrays of an .npz file by name; never unpickles."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise HwsimError(f"{path}: holds one array; write an .npz with one array for every input")
            return {name: file[name] for name in file.files}
    except HwsimError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise whatever damaged bytes provoke
        raise HwsimError(f"{path}: not an .npz file of plain arrays ({type(error).__name__})") from None


def _write(target: Path, arrays: dict[str, Array]) -> None:
    partial = target.with_name(target.name + ".partial.npz")
    try:
        # Not numpy.savez: its own parameters would clash with tensors called "file".
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, value, allow_pickle=False)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise HwsimError(f"{target}: cannot be written ({error.strerror or error})") from None
