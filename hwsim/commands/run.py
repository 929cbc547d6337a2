"""``hwsim run``: one network on one machine, or a language model's whole answer."""

from __future__ import annotations

import argparse
from typing import Any

from hwsim.arguments import output_files, shapes, target
from hwsim.errors import HwsimError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("network", help="a zoo name, or a .layers.csv, .onnx, .tflite, .pt2 or SCALE-Sim .csv file")
    parser.add_argument(
        "--on", required=True, metavar="TARGET", help="NAME[:MODE][@HOST[/LINK]][*COUNT] or a .toml file"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--shapes", default="", metavar="S=384,…", help="values of further symbols")
    parser.add_argument("--phase", choices=("prefill", "decode"), help="which phase of a language model")
    parser.add_argument("--context", type=int, help="tokens read (prefill) or kept (decode)")
    parser.add_argument("--prompt", type=int, metavar="TOKENS", help="of a language model, read before --generate")
    parser.add_argument("--generate", type=int, metavar="TOKENS", help="tokens to make: prefill and all decode steps")
    parser.add_argument("--precision", help="fp32, bf16, fp16, int8, w8a16 …, or per layer: int8,fc*=bf16")
    parser.add_argument(
        "--sparsity", help="dense, 2:4 where eligible, 2:4! or refuse; processors: blocks of zeros as 90%%x4"
    )
    parser.add_argument("--host", metavar="HOST[/LINK]", help="the machine that feeds TARGET, as TARGET@HOST/LINK does")
    parser.add_argument(
        "--stack",
        help="software: xla (TPU); compiled, eager, gpu+dla … (GPU); library[:threads] as xnnpack:2 (processors)",
    )
    parser.add_argument(
        "--cache", choices=("warm", "cold"), default="warm", help="whether a run finds its data in caches"
    )
    parser.add_argument(
        "--parallel", metavar="KIND", help="how several GPUs share the work: data, tensor, or tensor=4,data=2"
    )
    parser.add_argument(
        "--emulate", action="store_true",
        help="on a GPU, run formats (and 2:4) it does not multiply in wider ones, at their real cost, instead of refusing",
    )  # fmt: skip
    parser.add_argument("--pre", metavar="STAGES", help="host work before the network, e.g. decode,resize,quantise")
    parser.add_argument("--post", metavar="STAGES", help="host work after it, e.g. dequantise,nms")
    parser.add_argument("--image", metavar="1280x720", default="1280x720", help="the frame as it arrives, for --pre")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON (- for standard output)")
    parser.add_argument("--csv", metavar="FILE", help="write the per-kernel table as CSV (- for standard output)")
    parser.add_argument("--parquet", metavar="FILE", help="write the per-kernel table as Parquet (extra parquet)")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page: figures, every kernel, sources")
    parser.add_argument("--perfetto", metavar="FILE", help="write the timeline for ui.perfetto.dev (.json or .json.gz)")
    parser.add_argument(
        "--export-profile", "--exportProfile", metavar="FILE", help="write time per kernel in trtexec's JSON form"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--layers", action="store_true", help="print all kernels (default: the 12 most expensive)")
    shown.add_argument("--top", type=int, metavar="N", help="print the N most expensive kernels")
    parser.add_argument(
        "--detail", action="store_true", help="print time and energy of every kernel by cause and component"
    )


def main(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from hwsim.report import kernel_text, text
    from hwsim.simulation import simulate

    if args.top is not None and args.top < 1:
        raise HwsimError(f"--top must be at least 1, not {args.top}")
    paths = (args.json, args.csv, args.html, args.perfetto, args.export_profile)
    output_files(*paths, args.parquet)
    if args.prompt is not None or args.generate is not None:
        return _generate(args)
    result = simulate(
        args.network, target(args.on, args.host), phase=args.phase, context=args.context, **_conditions(args)
    )
    around = None
    if args.pre is not None or args.post is not None:
        from hwsim.simulation.pipeline import pipeline_of

        around = pipeline_of(result, pre=args.pre or (), post=args.post or (), image=args.image)
    renders = (result.to_json, result.to_csv, result.to_html, result.to_perfetto, result.to_profile)
    for path, render in zip(paths, renders, strict=True):
        if path == "-":
            print(render())
        elif path is not None:
            render(path)
    if args.parquet is not None:
        result.to_parquet(args.parquet)
    if "-" in paths:
        return 0
    print(text.summary(result))
    if around is not None:
        print(text.pipeline(around))
    if result.compiler_log:
        print("\n" + result.compiler_log)
    print()
    total = len(result.kernels)
    if args.layers:
        print(kernel_text.kernel_table(result))
    else:
        print(f"  The costliest of {total} kernels, alike ones in one line (--layers shows all)")
        print(kernel_text.kind_table(result, args.top or 12))
    if args.detail:
        print()
        print(kernel_text.detail_table(result))
    print()
    print(text.notes(result))
    for path in (*paths, args.parquet):
        if path is not None:
            print(f"wrote {path}")
    return 0


def _conditions(args: argparse.Namespace) -> dict[str, Any]:
    """What one run and a language model's many are told alike."""
    names = ("batch", "precision", "sparsity", "stack", "cache", "parallel", "emulate")
    return {"shapes": shapes(args.shapes), **{name: getattr(args, name) for name in names}}


def _generate(args: argparse.Namespace) -> int:
    from hwsim.report.generation_text import generation_text
    from hwsim.simulation.generation import generate

    if args.generate is None:
        raise HwsimError(
            "--prompt reads tokens for --generate: say how many it makes, or use --phase prefill --context"
        )
    alone = ("phase", "context", "csv", "parquet", "html", "perfetto", "export_profile", "pre", "post")
    given = next((name for name in alone if getattr(args, name) not in (None, ())), None)
    if given is not None:
        raise HwsimError(f"--generate is many runs: --{given.replace('_', '-')} is for one")
    found = generate(
        args.network,
        target(args.on, args.host),
        prompt=1 if args.prompt is None else args.prompt,
        tokens=args.generate,
        **_conditions(args),
    )
    if args.json == "-":
        print(found.to_json())
        return 0
    print(generation_text(found))
    if args.json is not None:
        from hwsim.files import write_whole

        write_whole(args.json, found.to_json() + "\n")
        print(f"wrote {args.json}")
    return 0
