#!/usr/bin/env bash
# Every test: linters, unit tests, tests under mpiexec, tests of whole commands. No root needed; what needs more
# than this machine has is skipped with a line that says so.
#
#   bash tests/run_all.sh [PYTEST OPTIONS]      with -n 0: one test after the other
set -euo pipefail
cd "$(dirname "$0")/.."
. run/setup.sh images detect figures report test

flake8 hpclcae tests
mypy
# The slow ones come first, in the order of the folders' names. Many tests wait for jobs, so one worker more than cores;
# many use two ranks, so four are enough.
cores=$(getconf _NPROCESSORS_ONLN)
python -m pytest -n "$((cores < 4 ? cores + 1 : 4))" --dist loadscope --no-loadscope-reorder "$@" tests
