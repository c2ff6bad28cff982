#!/usr/bin/env bash
# Low communication: asynchronous SGD, elastic averaging and outer optimizers (DiLoCo) with 2 and 4 replicas, at equal
# minibatches, seconds and bytes; with IMAGES=TEST.h5 also what the servers hold at the end, on images of that dataset.
#
#   bash run/lowcomm.sh TRAIN.h5 [FOLDER] ["SEEDS"]     about 10 minutes on two cores; FOLDER (default: runs/lowcomm)
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(realpath "${1:?usage: bash run/lowcomm.sh TRAIN.h5 [FOLDER] [\"SEEDS\"]}")
folder=${2:-runs/lowcomm}
minibatches=${MINIBATCHES:-1200}
mkdir -p "$folder"

learn() { # NAME REPLICAS SEED OPTIONS...
    local name=$1-$2-seed$3 replicas=$2 seed=$3 steps=$((minibatches / $2)) lines=$((12 / $2))
    shift 3
    [ -d "$folder/$name/checkpoints" ] && return
    hpclcae launch run/tiny.toml --out "$folder/$name" --servers 1 --replicas "$replicas" --grid 1x1 \
        --set data.train="$data" --set train.seed="$seed" --set data.size=32 --set train.steps="$steps" \
        --set update.rule=adam --set update.rate=0.02 --set update.schedule=constant --set train.log_every="$lines" \
        --set train.checkpoint_every=100000 "$@" > "$folder/$name.log" 2>&1
}
every() { echo "--set parallel.fetch_every=$1 --set parallel.push_every=$1"; }
for seed in ${3:-0 1 2}; do
    for replicas in ${REPLICAS:-2 4}; do
        learn asynchronous "$replicas" "$seed"
        # shellcheck disable=SC2046 # several words
        learn elastic10 "$replicas" "$seed" --set parallel.elastic=0.25 $(every 10)
        for steps in 10 30; do
            # shellcheck disable=SC2046
            learn "outer$steps" "$replicas" "$seed" --set parallel.outer_rate=0.7 $(every "$steps")
        done
    done
done
for replicas in ${REPLICAS:-2 4}; do
    hpclcae convergence "$folder"/*-"$replicas"-seed*/ ${IMAGES:+--images "$IMAGES"}
done
