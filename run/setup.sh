# Sourced by run/quickstart.sh and tests/run_all.sh: a virtual environment with hpclcae in it.
#
#   . run/setup.sh EXTRA...
#
# An environment that is already active, and HPCLCAE_VENV, are respected. The MPI library comes as a wheel too
# (MPICH: it starts four ranks in a third of the time that Open MPI's wheel needs), so no root is needed.
venv=${HPCLCAE_VENV:-${VIRTUAL_ENV:-.venv}}
if [ ! -x "$venv/bin/python" ]; then
    python=$(command -v python3.11 || command -v python3) || { echo "Python 3.11 is needed and is not on the PATH" >&2; exit 1; }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || { echo "$python is $("$python" -V): Python 3.11 or newer is needed" >&2; exit 1; }
    echo "making the environment $venv"
    "$python" -m venv "$venv" || { echo "python -m venv failed (on Debian: apt-get install python3-venv)" >&2; exit 1; }
fi
export PATH="$PWD/$venv/bin:$PATH"
case $venv in /*) export PATH="$venv/bin:$PATH" ;; esac
extras=$(IFS=,; echo "mpich,$*" | tr ' ' ,)
# Install only when the list of what is needed, or the package's own metadata, has changed.
stamp=$venv/hpclcae-$(echo "$extras" | cksum | cut -d' ' -f1).stamp
if [ ! -f "$stamp" ] || [ setup.cfg -nt "$stamp" ] || ! python -c 'import hpclcae' 2>/dev/null; then
    echo "installing hpclcae[$extras]"
    python -m pip install --quiet --disable-pip-version-check -e ".[$extras]"
    touch "$stamp"
fi
