#!/usr/bin/env bash
# How 1, 2 and 4 replicas learn: asynchronously, the same with the rate divided by 1 + staleness, with elastic averaging, and
# synchronously; the same minibatches in all.
#
#   bash run/convergence.sh TRAIN.h5 [FOLDER]     about 6 minutes on two cores; FOLDER (default: runs/convergence)
#
# All three stages learn at the same time here (train.gradient = stopped), so a curve has no jumps.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(realpath "${1:?usage: bash run/convergence.sh TRAIN.h5 [FOLDER]}")
folder=${2:-runs/convergence}
minibatches=${MINIBATCHES:-1200}
mkdir -p "$folder"

learn() { # NAME REPLICAS OPTIONS...
    local name=$1 replicas=$2 steps=$((minibatches / $2)) lines=$((12 / $2))
    shift 2
    [ -d "$folder/$name/checkpoints" ] && return
    hpclcae launch run/plain.toml --out "$folder/$name" --set parallel.replicas="$replicas" --grid 1x1 --set data.train="$data" \
        --set train.steps="$steps" --set train.gradient=stopped --set update.schedule=constant \
        --set train.log_every="$lines" --set train.checkpoint_every=100000 "$@"
}
learn alone 1 --servers 0
for replicas in 1 2 4; do
    learn "asynchronous-$replicas" "$replicas" --servers 1
done
for replicas in 2 4; do
    learn "scaled-$replicas" "$replicas" --servers 1 --set update.staleness_scaled=true
    learn "elastic-$replicas" "$replicas" --servers 1 --set parallel.elastic=0.25 --set parallel.fetch_every=5 \
        --set parallel.push_every=5
    learn "synchronous-$replicas" "$replicas" --servers 1 --set parallel.consistency=synchronous
done
hpclcae convergence "$folder"/*/ --plot "$folder/convergence.png"
