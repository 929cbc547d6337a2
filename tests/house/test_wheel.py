"""What a user installs: the wheel holds the data, and answers from anywhere."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _pip_can_build() -> bool:
    done = subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built with the back end the environment has (the test extra installs it)."""
    if not _pip_can_build():
        pytest.skip("hatchling is not installed")
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_models_and_accelerators(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "hwsim/_data/models/resnet50.layers.csv" in names
    assert "hwsim/_data/accelerators/tpu-v4.toml" in names
    assert "hwsim/_data/accelerators/constants/systolic.toml" in names
    assert "hwsim/py.typed" in names
    assert not [n for n in names if n.startswith(("tests/", "studies/"))]


def test_the_wheel_answers_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); import hwsim; assert 'site' in hwsim.__file__\n"
        "from hwsim.cli import main; sys.exit(main(['run', 'resnet50', '--on', 'tpu-v3', '--batch', '8', '--json', '-']))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"network": "resnet50"' in done.stdout
