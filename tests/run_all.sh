#!/usr/bin/env bash
# Every test: linters, unit tests, tests under mpiexec, tests of whole commands. No root needed; what needs more
# than this machine has is skipped with a line that says so.
#
#   bash tests/run_all.sh [PYTEST OPTIONS]
set -euo pipefail
cd "$(dirname "$0")/.."
. run/setup.sh images detect figures test

flake8 hpclcae tests
mypy
python -m pytest "$@" tests
