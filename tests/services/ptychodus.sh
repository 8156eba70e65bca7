#!/usr/bin/env bash
# Products of this project, opened and simulated by the real ptychodus and compared with our frames, and
# its own files read here: tests/services/ptychodus_check.py.
#
#   tests/services/ptychodus.sh
#
# Needs no system packages and no display. ptychodus comes into .venv-ptychodus, which is
# built once, and anew when this file changes. PYTHON names the project's interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${PYTHON:-.venv/bin/python}
environment=.venv-ptychodus
stamp=$environment/.built
check=tests/services/ptychodus_check.py

if [[ ! $stamp -nt tests/services/ptychodus.sh ]]; then
  "$python" -m venv --clear "$environment"
  "$environment/bin/python" -m pip --disable-pip-version-check install --quiet ptychodus==1.7.0
  touch "$stamp"
fi

folder=$(mktemp --directory)
trap 'rm -rf "$folder"' EXIT
PYTHONPATH=src "$python" "$check" make "$folder"
"$environment/bin/python" "$check" check "$folder"
PYTHONPATH=src "$python" "$check" read "$folder"
