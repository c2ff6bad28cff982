#!/usr/bin/env bash
# The oldest libraries that setup.cfg allows read pictures, films and datasets as the newest do, and train.
#
#   bash tests/lowest.sh     under a minute where pip has the wheels
#
# Needs Python 3.11 with venv and a package index. It writes into a temporary folder only, and removes it. run_all.sh
# does not run it: it makes an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV  # nothing of the environment that this script was started from

python=$(command -v python3.11) || { echo "lowest: Python 3.11 is needed and is not on the PATH" >&2; exit 1; }
"$python" -m venv "$work/env"
export PATH="$work/env/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1
# The lowest version that each line of setup.cfg allows.
python - > "$work/lowest.txt" <<'PY'
import configparser
cfg = configparser.ConfigParser()
cfg.read("setup.cfg")
extras = cfg["options.extras_require"]
for lines in (cfg["options"]["install_requires"], *(extras[name] for name in ("images", "heif", "figures", "report", "safetensors", "detect"))):
    for line in lines.split("\n"):
        if line.strip() and not line.strip().startswith("#"):
            print(line.strip().partition(",")[0].replace(">=", "=="))
PY
echo "lowest: $SECONDS s: installing $(tr '\n' ' ' < "$work/lowest.txt")"
python -m pip install --quiet --only-binary=:all: -r "$work/lowest.txt" mpich pytest pytest-timeout hypothesis
python -m pip install --quiet --no-deps -e .
echo "lowest: $SECONDS s: tests"
OPENBLAS_NUM_THREADS=1 python -m pytest -q -p no:cacheprovider -W "ignore::DeprecationWarning" \
    tests/unit/data/test_decode.py tests/unit/data/test_faces.py tests/unit/data/ingest/test_film.py tests/unit/data/test_dataset.py \
    tests/unit/utils/test_expressions.py tests/unit/utils/test_text.py tests/unit/commands/data/test_ingest.py \
    "tests/unit/commands/test_figures.py::test_all_figures_are_written_and_named[1]" \
    tests/unit/commands/test_report.py::test_a_neuron_that_is_named_is_there "$@"
echo "lowest: $SECONDS s: all of it works"
