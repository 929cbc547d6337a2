"""Data folders are found in a wheel, in a checkout, and their absence is said."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import hwsim
from hwsim.data import accelerators_dir, data_root, models_dir

PACKAGE = Path(hwsim.__file__).parent


def locate(package_parent: Path) -> str:
    """What a fresh interpreter finds when the package lies in ``package_parent``."""
    target = package_parent / "hwsim"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("errors.py", "data.py"):
        shutil.copy(PACKAGE / name, target / name)
    (target / "__init__.py").touch()
    code = "import hwsim.data as d\ntry: print(d.data_root())\nexcept ValueError as e: print('error:', e)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=package_parent, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_this_installation_finds_its_data() -> None:
    assert (accelerators_dir() / "tpu-v1.toml").is_file()
    assert models_dir() == data_root() / "models"


def test_a_wheel_carries_its_data_inside(tmp_path: Path) -> None:
    for folder in ("models", "accelerators"):
        (tmp_path / "hwsim" / "_data" / folder).mkdir(parents=True)
        (tmp_path / folder).mkdir()
    assert locate(tmp_path) == str(tmp_path / "hwsim" / "_data")


def test_a_checkout_has_its_data_beside_the_package(tmp_path: Path) -> None:
    for folder in ("models", "accelerators"):
        (tmp_path / folder).mkdir()
    assert locate(tmp_path) == str(tmp_path)


def test_a_broken_installation_says_so(tmp_path: Path) -> None:
    assert locate(tmp_path).startswith("error: the data folders models/ and accelerators/ are missing")


def test_machines_load_without_heavy_imports() -> None:
    heavy = ["numpy", "pandas", "numba", "scipy", "matplotlib", "onnx", "torch", "simpy"]
    code = (
        f"import sys, hwsim.machine as m; m.load_accelerator('tpu-v4'); print([h for h in {heavy} if h in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
