"""The command line: a table of commands, each loaded when given. Errors are one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, cast

import hwsim
from hwsim.errors import HwsimError, near, one_line


@dataclass(frozen=True, slots=True)
class Command:
    """What a command does, and the module with its ``add_arguments(parser)`` and ``main(args) -> exit code``."""

    told: str
    module: str
    suffix: str = ""  # of those two functions, where a module has several commands

    def add_arguments(self) -> Callable[[argparse.ArgumentParser], None]:
        """Load what fills the parser."""
        return cast(Callable[[argparse.ArgumentParser], None], self._load("add_arguments"))

    def main(self) -> Callable[[argparse.Namespace], int]:
        """Load what runs."""
        return cast(Callable[[argparse.Namespace], int], self._load("main"))

    def _load(self, name: str) -> object:
        return getattr(importlib.import_module(f"hwsim.{self.module}"), name + self.suffix)


COMMANDS = {
    "run": Command("latency, energy and traffic of a network on a machine, with reasons", "commands.run"),
    "compare": Command("a network on many machines, ranked by cost at a latency objective", "commands.compare"),
    "compile": Command("what edgetpu_compiler would print: mapped, cached, streamed", "simulation.edge_tpu_compiler"),
    "serve": Command("many requests on one or more machines: waiting, objectives, fleets, cost", "serving.command"),
    "list": Command("networks or accelerators that ship with hwsim", "commands.library", "_of_list"),
    "show": Command("one network layer by layer, or one machine with all sources", "commands.library", "_of_show"),
    "import": Command("turn a model file into a layer trace", "commands.library", "_of_import"),
    "execute": Command(
        "run a network with a machine's arithmetic and show its values", "execution.command", "_of_execute"
    ),
    "verify": Command(
        "compare those values, bit for bit, with the oracle that applies", "execution.command", "_of_verify"
    ),
    "numerics": Command("what each precision costs in accuracy, layer by layer", "execution.command", "_of_numerics"),
    "validate": Command("measured rows against predictions: errors by device and kind", "validate.command"),
    "scalesim": Command("SCALE-Sim's own files in, its own reports out", "scalesim.command"),
}


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


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands; only the one given has its options filled in."""
    parser = _Parser(prog="hwsim", description="What will this network cost on that hardware, and why?")
    parser.add_argument("--version", action="version", version=f"hwsim {hwsim.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser)
    for name, known in COMMANDS.items():
        added = commands.add_parser(name, help=known.told)
        if name == command:
            known.add_arguments()(added)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (2 for a wrong input, said in one line)."""
    try:
        _any_text(sys.stdout)
        given = list(sys.argv[1:] if argv is None else argv)
        args = build_parser(given[0] if given else None).parse_args(given)
        if args.command is None:
            build_parser().print_help()
            return 0
        code = COMMANDS[args.command].main()(args)
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


if __name__ == "__main__":
    sys.exit(main())
