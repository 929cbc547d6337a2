"""The command line: parses, calls the API, prints. Errors are one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import hwsim
from hwsim.errors import HwsimError, near, one_line


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors and near matches for wrong choices."""

    def error(self, message: str) -> NoReturn:
        raise HwsimError(f"{message} ({self.prog} --help shows how)")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(c) for c in action.choices]
            raise HwsimError(
                f"unknown {action.metavar or action.dest} {value!r}: one of {', '.join(known)}{near(str(value), known)}"
            )


_VALUES = {
    "execute": "run a network with a machine's arithmetic and show its values",
    "verify": "compare those values, bit for bit, with the oracle that applies",
    "numerics": "what each precision costs in accuracy, layer by layer",
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands; the options of a leaf command are only filled in when it is the one given."""
    parser = _Parser(prog="hwsim", description="What will this network cost on that hardware, and why?")
    parser.add_argument("--version", action="version", version=f"hwsim {hwsim.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser)

    run = commands.add_parser("run", help="latency, energy and traffic of a network on a machine, with reasons")
    run.add_argument("network", help="a zoo name, or a .layers.csv, .onnx, .tflite, .pt2 or SCALE-Sim .csv file")
    run.add_argument("--on", required=True, metavar="TARGET", help="NAME[:MODE][@HOST[/LINK]][*COUNT] or a .toml file")
    run.add_argument("--batch", type=int, default=1)
    run.add_argument("--shapes", default="", metavar="S=384,…", help="values of further symbols")
    run.add_argument("--phase", choices=("prefill", "decode"), help="which phase of a language model")
    run.add_argument("--context", type=int, help="tokens read (prefill) or kept (decode)")
    run.add_argument("--prompt", type=int, metavar="TOKENS", help="of a language model, read before --generate")
    run.add_argument("--generate", type=int, metavar="TOKENS", help="tokens to make: prefill and all decode steps")
    run.add_argument("--precision", help="fp32, bf16, fp16, int8, w8a16 …, or per layer: int8,fc*=bf16")
    run.add_argument(
        "--sparsity", help="dense, 2:4 where eligible, 2:4! or refuse; processors: blocks of zeros as 90%%x4"
    )
    run.add_argument("--host", metavar="HOST[/LINK]", help="the machine that feeds TARGET, as TARGET@HOST/LINK does")
    run.add_argument(
        "--stack",
        help="software: xla (TPU); compiled, eager, gpu+dla … (GPU); library[:threads] as xnnpack:2 (processors)",
    )
    run.add_argument("--cache", choices=("warm", "cold"), default="warm", help="whether a run finds its data in caches")
    run.add_argument(
        "--parallel", metavar="KIND", help="how several GPUs share the work: data, tensor, or tensor=4,data=2"
    )
    run.add_argument("--pre", metavar="STAGES", help="host work before the network, e.g. decode,resize,quantise")
    run.add_argument("--post", metavar="STAGES", help="host work after it, e.g. dequantise,nms")
    run.add_argument("--image", metavar="1280x720", default="1280x720", help="the frame as it arrives, for --pre")
    run.add_argument("--json", metavar="FILE", help="write everything as JSON (- for standard output)")
    run.add_argument("--csv", metavar="FILE", help="write the per-kernel table as CSV (- for standard output)")
    run.add_argument("--parquet", metavar="FILE", help="write the per-kernel table as Parquet (extra parquet)")
    run.add_argument("--html", metavar="FILE", help="write one self-contained page: figures, every kernel, sources")
    run.add_argument("--perfetto", metavar="FILE", help="write the timeline for ui.perfetto.dev (.json or .json.gz)")
    run.add_argument(
        "--export-profile", "--exportProfile", metavar="FILE", help="write time per kernel in trtexec's JSON form"
    )
    shown = run.add_mutually_exclusive_group()
    shown.add_argument("--layers", action="store_true", help="print all kernels (default: the 12 most expensive)")
    shown.add_argument("--top", type=int, metavar="N", help="print the N most expensive kernels")
    run.add_argument(
        "--detail", action="store_true", help="print time and energy of every kernel by cause and component"
    )

    compared = commands.add_parser("compare", help="a network on many machines, ranked by cost at a latency objective")
    if command == "compare":
        _compare_arguments(compared)

    compiled = commands.add_parser("compile", help="what edgetpu_compiler would print: mapped, cached, streamed")
    if command == "compile":
        from hwsim.simulation.edge_tpu_compiler import add_arguments as add_compile_arguments

        add_compile_arguments(compiled)

    served = commands.add_parser(
        "serve", help="many requests on one or more machines: waiting, objectives, fleets, cost"
    )
    if command == "serve":
        from hwsim.serving.command import add_arguments as add_serving_arguments

        add_serving_arguments(served)

    lists = commands.add_parser("list", help="networks or accelerators that ship with hwsim")
    lists.add_argument("what", choices=("networks", "accelerators"))
    lists.add_argument("--json", action="store_true")

    show = commands.add_parser("show", help="one network layer by layer, or one machine with all sources")
    show.add_argument("name", help="a network or an accelerator: a name or a file")
    show.add_argument("--batch", type=int, help="of a network (default 1)")

    importer = commands.add_parser("import", help="turn a model file into a layer trace")
    importer.add_argument("network", help="an .onnx, .tflite, .pt2 or SCALE-Sim file")
    importer.add_argument("-o", "--output", required=True, metavar="FILE.layers.csv")
    importer.add_argument("--name", help="the network's name in the trace")

    for name, told in _VALUES.items():
        values = commands.add_parser(name, help=told)
        if command == name:
            from hwsim.execution.command import add_arguments as add_value_arguments

            add_value_arguments(values, name)

    checked = commands.add_parser("validate", help="measured rows against predictions: errors by device and kind")
    if command == "validate":
        from hwsim.validate.command import add_arguments as add_validate_arguments

        add_validate_arguments(checked)

    scalesim = commands.add_parser("scalesim", help="SCALE-Sim's own files in, its own reports out")
    if command == "scalesim":
        from hwsim.scalesim.command import add_arguments

        add_arguments(scalesim)
    return parser


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    from hwsim.comparison.price_arguments import add_price_arguments

    parser.add_argument("network", help="a zoo name, or a .layers.csv, .onnx, .tflite, .pt2 or SCALE-Sim .csv file")
    parser.add_argument("--on", required=True, metavar="A,B,…", help="targets with commas between, as for run")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--batch", type=int, help="default: the best that meets the objective, else 1")
    sizes.add_argument("--batches", metavar="1,8,64", help="a row for each")
    parser.add_argument("--slo", metavar="20ms", help="latency objective")
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument("--rate", metavar="300/s", help="requests to carry")
    rates.add_argument(
        "--requests-per-month", metavar="3M", help="the same as a number a month, in the hours with work"
    )
    parser.add_argument("--break-even", action="store_true", help="add which machine is cheapest at which request rate")
    parser.add_argument(
        "--break-even-csv", metavar="FILE", help="write costs over the rate as CSV (- for standard output)"
    )
    parser.add_argument("--precision", help="as for run; default the network's own, or the nearest a machine has")
    parser.add_argument("--shapes", default="", metavar="S=384,…", help="values of further symbols")
    parser.add_argument("--phase", choices=("prefill", "decode"), help="which phase of a language model")
    parser.add_argument("--context", type=int, help="tokens read (prefill) or kept (decode)")
    add_price_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON (- for standard output)")
    parser.add_argument("--sparsity", choices=("dense", "2:4", "2:4!"), help="where a machine has sparse multipliers")
    parser.add_argument("--csv", metavar="FILE", help="write the rows as CSV (- for standard output)")
    parser.add_argument("--parquet", metavar="FILE", help="write the rows as Parquet (extra parquet)")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page: ranking, Pareto plots, costs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (2 for a wrong input, said in one line)."""
    try:
        _any_text(sys.stdout)
        given = list(sys.argv[1:] if argv is None else argv)
        args = build_parser(given[0] if given else None).parse_args(given)
        if args.command is None:
            build_parser().print_help()
            return 0
        code = int(_COMMANDS[args.command](args) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
        return code
    except HwsimError as error:
        print(f"hwsim: {one_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _discard_output()  # its reader (head, less) has gone, which is not an error
        return 0
    except OSError as error:
        _discard_output()
        print(f"hwsim: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hwsim: interrupted", file=sys.stderr)
        return 130
    except RecursionError:
        print("hwsim: the input is nested too deeply", file=sys.stderr)
        return 2
    except MemoryError:
        print("hwsim: not enough memory for this input", file=sys.stderr)
        return 2


def _any_text(stream: object) -> None:
    """Let characters the terminal lacks be printed as escapes, not end in an error."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter's last flush cannot fail again."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _shapes(text: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, eq, value = (word.strip() for word in part.partition("="))
        if not (eq and key and value.isascii() and value.isdigit() and len(value) <= 15):
            raise HwsimError(f"--shapes {part!r}: write symbols and sizes as S=384,P=0")
        if key in out:
            raise HwsimError(f"--shapes: {key} is given twice")
        out[key] = int(value)
    return out


def _target(target: str, host: str | None) -> str:
    """The target on another host, said apart."""
    if host is None:
        return target
    if "@" in target:
        raise HwsimError(f"--host {host}: {target} already names its host")
    base, star, count = target.partition("*")
    return f"{base}@{host}{star}{count}"


def _output_files(*paths: str | None) -> None:
    """Refuse before the work is done what could not be written after it."""
    from hwsim.files import check_writable

    named = [path for path in paths if path is not None]
    files = ["-" if path == "-" else str(check_writable(path).absolute()) for path in named]
    twice = next((named[i] for i, file in enumerate(files) if file in files[:i]), None)
    if twice is not None:
        raise HwsimError(f"two outputs are to go to {twice}; give each its own file")


def _run(args: argparse.Namespace) -> int:
    from hwsim.report import kernel_text, text
    from hwsim.simulation import simulate

    if args.top is not None and args.top < 1:
        raise HwsimError(f"--top must be at least 1, not {args.top}")
    paths = (args.json, args.csv, args.html, args.perfetto, args.export_profile)
    _output_files(*paths, args.parquet)
    if args.prompt is not None or args.generate is not None:
        return _generate(args)
    result = simulate(
        args.network,
        _target(args.on, args.host),
        batch=args.batch,
        shapes=_shapes(args.shapes),
        phase=args.phase,
        context=args.context,
        precision=args.precision,
        sparsity=args.sparsity,
        stack=args.stack,
        cache=args.cache,
        parallel=args.parallel,
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
        _target(args.on, args.host),
        prompt=1 if args.prompt is None else args.prompt,
        tokens=args.generate,
        batch=args.batch,
        shapes=_shapes(args.shapes),
        precision=args.precision,
        sparsity=args.sparsity,
        stack=args.stack,
        cache=args.cache,
        parallel=args.parallel,
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


def _compare(args: argparse.Namespace) -> int:
    from hwsim.comparison import compare
    from hwsim.comparison.price_arguments import prices_of
    from hwsim.files import write_whole
    from hwsim.report.compare_text import break_even_text, comparison_text
    from hwsim.report.progress import Progress

    _output_files(args.json, args.csv, args.html, args.break_even_csv)
    with Progress("comparing", args.on.count(",") + 11) as bar:
        comparison = compare(
            args.network,
            args.on,
            batch=args.batch if args.batches is None else _sizes(args.batches),
            slo=args.slo,
            rate=args.rate,
            precision=args.precision,
            shapes=_shapes(args.shapes),
            phase=args.phase,
            context=args.context,
            sparsity=args.sparsity,
            prices=prices_of(args),
            per_month=args.requests_per_month,
            progress=bar.at,
        )
    paths = (args.json, args.csv, args.html)
    for path, render in zip(paths, (comparison.to_json, comparison.to_csv, comparison.to_html), strict=True):
        if path == "-":
            print(render(), end="\n" if render == comparison.to_json else "")
        elif path is not None:
            render(path)
    if args.parquet is not None:
        comparison.to_parquet(args.parquet)
    curves = args.break_even_csv
    if curves == "-":
        print(comparison.break_even.to_csv(), end="")
    elif curves is not None:
        write_whole(curves, comparison.break_even.to_csv())
    if "-" in (*paths, curves):
        return 0
    print(comparison_text(comparison))
    if args.break_even:
        print(f"\n{break_even_text(comparison)}")
    for path in (*paths, args.parquet, curves):
        if path is not None:
            print(f"wrote {path}")
    return 0


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise HwsimError(f"--batches {text!r}: write whole numbers with commas between, as 1,8,64")
    return [int(part) for part in parts]


def _list(args: argparse.Namespace) -> int:
    from hwsim.report.table import table

    if args.what == "networks":
        from hwsim.network.load import list_networks as rows_of
    else:
        from hwsim.machine import list_accelerators as rows_of
    rows = list(rows_of())
    if args.json:
        import json

        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"no {args.what} found")
        return 0
    columns = [c for c in rows[0] if c != "source"]
    cells = [
        ["" if row[c] is None else f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        for row in rows
    ]
    left = [i for i, c in enumerate(columns) if not all(isinstance(r[c], int | float | None) for r in rows)]
    print(table(columns, cells, left=left))
    return 0


def _show(args: argparse.Namespace) -> int:
    from pathlib import Path

    from hwsim.machine import load_accelerator
    from hwsim.machine.library import machine_names, names_machine
    from hwsim.network.load import load_network, zoo
    from hwsim.report import text

    name: str = args.name
    is_machine = name not in zoo() and names_machine(name)
    if not is_machine and not Path(name).exists() and name not in zoo():
        known = [*machine_names(), *zoo()]
        raise HwsimError(f"no network or accelerator is called {name!r}{near(name, known)}")
    if is_machine:
        if args.batch is not None:
            raise HwsimError(f"--batch is for networks; {name} is an accelerator")
        print(text.accelerator_table(load_accelerator(name)))
        return 0
    net = load_network(name)
    if args.batch not in (None, 1):
        if "N" not in net.symbols:
            raise HwsimError(f"network {net.name}: its batch is fixed in the file")
        net = net.bind(N=args.batch)
    print(text.network_table(net))
    return 0


def _import(args: argparse.Namespace) -> int:
    from hwsim.network.load import load_network
    from hwsim.network.trace import write_trace

    _output_files(args.output)
    net = load_network(args.network)
    if args.name is not None:
        name = " ".join(args.name.split())
        if not name:
            raise HwsimError("--name is empty")
        net = net.rename(name)
    write_trace(net, args.output)
    print(f"wrote {args.output}: {len(net.layers)} layers, {net.macs:,} MACs, {net.params:,} parameters")
    return 0


def _scalesim(args: argparse.Namespace) -> int:
    from hwsim.scalesim import command

    return command.main(args)


def _compile(args: argparse.Namespace) -> int:
    from hwsim.simulation.edge_tpu_compiler import command

    print(command(args))
    return 0


def _validate(args: argparse.Namespace) -> int:
    from hwsim.validate.command import run

    _output_files(args.csv, args.markdown)
    return run(args)


def _serve(args: argparse.Namespace) -> int:
    from hwsim.serving.command import run

    _output_files(args.json, args.csv, args.requests_csv)
    return run(args, _shapes(args.shapes))


def _values(args: argparse.Namespace) -> int:
    from hwsim.execution.command import main as run_values

    return run_values(args, _shapes(args.shapes))


_COMMANDS = {
    **dict.fromkeys(_VALUES, _values),
    "run": _run,
    "compare": _compare,
    "serve": _serve,
    "compile": _compile,
    "list": _list,
    "show": _show,
    "import": _import,
    "scalesim": _scalesim,
    "validate": _validate,
}

if __name__ == "__main__":
    sys.exit(main())
