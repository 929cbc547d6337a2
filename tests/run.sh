#!/usr/bin/env bash
# Make an environment of its own, install hwsim with its test tools, lint, type-check, test.
# HWSIM_VENV names another place for the environment; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${HWSIM_VENV:-.venv}"
python="${PYTHON:-python3}"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[all]"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/python" -m pytest -n 2 "$@"
