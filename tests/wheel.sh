#!/usr/bin/env bash
# The package as a stranger gets it: sdist and wheel are complete, and what the wheel installs works away from the
# checkout, with the libraries of the core and an MPI library alone.
#
#   bash tests/wheel.sh     about a minute
#
# Needs Python 3.11 with venv, a package index and git (files that git ignores are left out). It writes into a temporary
# folder only, and removes it. run_all.sh does not run it: it makes an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV  # nothing of the environment that this script was started from

step() { echo "wheel: $SECONDS s: $*"; }
fail() { echo "wheel: $*" >&2; exit 1; }
# What a command says is shown only if it fails; `limit` in seconds ends ranks that wait for each other.
quietly() { timeout --foreground "${limit:-300}" "$@" > "$work/log" 2>&1 < /dev/null || { tail -n 40 "$work/log" >&2; fail "failed: $*"; }; }
# lacking WHAT: fails if any name arrives on standard input.
lacking() { local names; names=$(cat); [ -z "$names" ] || fail "$1: $(echo "$names" | tr '\n' ' ')"; }
in_order() { LC_ALL=C sort; }

step "a fresh environment"
python=$(command -v python3.11 || command -v python3) || fail "Python 3.11 is needed and is not on the PATH"
quietly "$python" -m venv "$work/env"
export PATH="$work/env/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1
quietly python -m pip install --target "$work/tools" build  # beside the environment, which stays fresh

step "the sdist, and the wheel from the sdist"
# Of a copy: the list of files that an earlier build left in a checkout would hide what MANIFEST.in lacks.
mkdir "$work/source" "$work/elsewhere"
git ls-files -z --cached --others --exclude-standard \
    | while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done \
    | tar --null --create --file - --files-from - | tar --extract --file - --directory "$work/source"
PYTHONPATH="$work/tools" quietly python -m build --outdir "$work/dist" "$work/source"
grep -A 5 'DeprecationWarning\|is deprecated\|are deprecated' "$work/log" || true
wheel=$(echo "$work"/dist/*.whl)

step "what is in them"
mkdir "$work/sdist"
tar --extract --gzip --file "$work"/dist/*.tar.gz --directory "$work/sdist" --strip-components 1
files() { (cd "$1" && find . -type f ! -path './.*' ! -path './*.egg-info/*' | in_order); }
comm -23 <(files "$work/source") <(files "$work/sdist") \
    | lacking "not in the sdist (a line of MANIFEST.in? a folder of hpclcae without __init__.py?)"
python -m zipfile --list "$wheel" | awk '{ print $1 }' | in_order > "$work/names"
comm -23 <(cd "$work/source" && find hpclcae -type f | in_order) "$work/names" \
    | lacking "not in the wheel (a line of package_data in setup.cfg?)"
sed -e '/^hpclcae\//d' -e '/^hpclcae-.*\.dist-info\//d' -e '/^File$/d' "$work/names" | lacking "in the wheel, and not ours"
grep -q '^hpclcae-.*\.dist-info/.*LICENSE$' "$work/names" || fail "the wheel has no LICENSE"

step "install the wheel with the extra mpich"
quietly python -m pip install "${wheel}[mpich]"
cd "$work/elsewhere"
python - <<'PY'
import sys
from pathlib import Path
import hpclcae
place = Path(hpclcae.__file__)
assert place.is_relative_to(sys.prefix), f"{place} is not in {sys.prefix}"
PY
[ "$(command -v hpclcae)" = "$work/env/bin/hpclcae" ] || fail "$(command -v hpclcae) is another hpclcae"

step "version, configuration, and the help of every command"
quietly hpclcae --version
quietly hpclcae --help
quietly hpclcae show "$work/sdist/run/paper.toml"
python -c 'from hpclcae.cli import COMMANDS; print(*COMMANDS, sep="\n")' > "$work/commands"
while read -r -a words; do quietly hpclcae "${words[@]}" --help; done < "$work/commands"

step "a dataset, training in one process and on two ranks, checkpoints"
python - <<'PY'
import numpy as np
from hpclcae.data.writer import DatasetWriter
row, col = np.mgrid[:24, :24]
with DatasetWriter("train.h5", 24, 1) as writer:
    for i in range(40):
        image = 128 + 80 * np.sin(0.6 * (np.cos(i) * row + np.sin(i) * col) + i)
        writer.append(image[..., None].astype(np.uint8), source=f"made/{i}", group=f"made/{i}", original=(24, 24),
                      crop=(0, 0, 24, 24))
PY
short=("$work/sdist/run/tiny.toml" --stop-at 3 --set data.train=train.h5)
quietly hpclcae train "${short[@]}" --out runs/one
limit=60 quietly mpiexec -n 2 hpclcae train "${short[@]}" --out runs/two
quietly hpclcae checkpoint verify runs/one
quietly hpclcae checkpoint verify runs/two

step "all of it works"
