#!/usr/bin/env bash
# Long training where jobs may not requeue themselves: a chain of jobs, each of which goes on where the one before ended.
#
#   bash slurm/chain.sh LENGTH [sbatch OPTIONS] slurm/train.sbatch CONFIGURATION RUN [--set KEY=VALUE ...]
#
# A job starts when the one before has ended, however it ended; once the run is complete the rest end within seconds.
set -euo pipefail
length=${1:-}
case $length in
    '' | *[!0-9]* | 0) echo "usage: bash slurm/chain.sh LENGTH [sbatch OPTIONS] slurm/train.sbatch CONFIGURATION RUN ..." >&2
        exit 2 ;;
esac
shift
export HPCLCAE_REQUEUE=no
after=()
jobs=()
for ((number = 1; number <= length; number++)); do
    said=$(sbatch --parsable --no-requeue ${after[@]+"${after[@]}"} "$@")  # bash 4.2: no empty arrays
    job=$(grep -Ex '[0-9]+(;.*)?' <<< "$said" | tail -n 1) || { echo "chain: sbatch said no job: $said" >&2; exit 1; }
    job=${job%%;*}
    jobs+=("$job")
    after=(--dependency="afterany:$job")
done
echo "chain: jobs ${jobs[*]}; to end it: scancel ${jobs[*]}"
