"""The house: imports point one way, and starting costs little."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "hwsim"

# A room may import from rooms of a lower or the same number, readers never from each other.
LEVEL = {
    "errors": 0, "formats": 0, "units": 0, "data": 0, "files": 0, "arguments": 1, "bands": 1, "network": 1, "language": 2,
    "machine": 1, "arithmetic": 2, "scalesim": 2,
    "power": 2, "link": 2,
    "schedule": 3, "timing": 4, "energy": 4, "plan": 5, "result": 6, "simulation": 7, "api": 7, "costs": 7,
    "comparison": 8, "report": 9, "validate": 10, "serving": 10, "execution": 10, "commands": 11, "cli": 12, "__main__": 13,
}  # fmt: skip
# Dataclasses that lowering reads are defined by the planner; the planner asks timing for its choices.
# A result and a comparison hand themselves to their readers (to_html), which are loaded when asked for.
ALLOWED = {("schedule", "plan"), ("result", "report"), ("comparison", "report")}
HEAVY = ("pandas", "numba", "matplotlib", "onnx", "tflite", "torch", "scipy", "dask", "simpy", "pyarrow")


def _room(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Modules imported by a file, and whether at module level (outside functions and TYPE_CHECKING)."""
    found: list[tuple[str, bool]] = []

    def walk(nodes: list[ast.stmt], top: bool) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                found.extend((alias.name, top) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.append((node.module, top))
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                walk(node.body, False)
            else:
                for field in ("body", "orelse", "finalbody", "handlers"):
                    inner = getattr(node, field, [])
                    inside = top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                    walk([n for n in inner if isinstance(n, ast.stmt)], inside)

    walk(ast.parse(path.read_text(encoding="utf-8")).body, True)
    return found


MODULES = [p for p in sorted(ROOT.rglob("*.py")) if p.name != "__init__.py" or p.parent != ROOT]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = _room(path)
    assert room in LEVEL, f"{room} is no room of the house: give it a level"
    for module, _ in _imports(path):
        parts = module.split(".")
        if parts[0] != "hwsim" or len(parts) < 2:
            continue
        other = parts[1]
        if other == room or (room, other) in ALLOWED:
            continue
        assert LEVEL[other] < LEVEL[room] or (LEVEL[other] == LEVEL[room] == 0), f"{room} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_load_on_first_use(path: Path) -> None:
    reference = "reference" in path.parts  # the slow twins need SimPy to be read as processes
    for module, top in _imports(path):
        if top and module.split(".")[0] in HEAVY:
            assert reference and module.split(".")[0] == "simpy", f"{path.name} imports {module} at module level"


def _loaded(code: str) -> set[str]:
    text = f"import sys\n{code}\nprint(' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_nothing_heavy() -> None:
    code = "from hwsim.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert not _loaded(code) & {*HEAVY, "numpy"}


def test_one_answer_loads_no_heavy_package() -> None:
    code = "from hwsim.cli import main\nassert main(['run', 'resnet50', '--on', 'tpu-v3', '--batch', '8']) == 0"
    assert not _loaded(code) & set(HEAVY)


def test_the_public_names_stay_functions_whatever_was_imported_first() -> None:
    code = "import hwsim.simulation, hwsim.result\nimport hwsim\n"
    code += "assert callable(hwsim.simulate)\nassert callable(hwsim.load_network)"
    _loaded(code)
