#!/usr/bin/env bash
# The tables and plots of notes/scale.md, simulated: some minutes on one core. bash run/scale.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-scale}"
mkdir -p "$out"
export OPENBLAS_NUM_THREADS=1
old=(--machine run/machines/2012.toml --per-node 1)
today=(--machine run/machines/today.toml)
run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

printf '## The paper'"'"'s layout\n'
for every in 1 5; do
    run hpclcae simulate run/paper.toml "${old[@]}" --replicas 1 5 --grid 13x13 --servers 256 --minibatches 500 \
        --set update.rule=adagrad --set parallel.fetch_every=$every --set parallel.push_every=$every
done
run hpclcae simulate run/paper.toml "${old[@]}" --replicas 5 --grid 13x13 --servers 256 --minibatches 500 --slow 0.01 \
    --set update.rule=adagrad
printf '\n## One network on more machines\n'
for grid in 1x1 2x2 4x4 9x9 8x16 13x13; do
    run hpclcae simulate run/paper.toml "${old[@]}" --replicas 1 --grid "$grid" --servers 64 --minibatches 30 \
        --set parallel.fetch_every=10 --set parallel.push_every=10
done
for grid in 1x1 9x9; do  # the same with 1 Gbit/s
    sed 's/bandwidth = 1.25e+09/bandwidth = 1.25e+08/; s/stream = 1e+09/stream = 1.25e+08/' run/machines/2012.toml \
        > "$out/one-gigabit.toml"
    run hpclcae simulate run/paper.toml --machine "$out/one-gigabit.toml" --per-node 1 --replicas 1 --grid "$grid" \
        --servers 64 --minibatches 30 --set parallel.fetch_every=10 --set parallel.push_every=10
done
printf '\n## The best layout today\n'
for nodes in 16 169 1000; do
    run hpclcae plan run/paper.toml "${today[@]}" --nodes "$nodes" --compare --halve
done
printf '\n## Ten times as large\n'
run hpclcae plan run/paper.toml "${today[@]}" --nodes 1000 --halve --set stages.0.maps=27 --set stages.1.maps=27 \
    --set stages.2.maps=27
printf '\n## A week of failures\n'
run hpclcae simulate run/paper.toml "${old[@]}" --replicas 5 --grid 13x13 --servers 256 --days 7
run hpclcae simulate run/paper.toml "${today[@]}" --replicas 8 --grid 64x100 --servers 800 --days 7
printf '\n## What staleness does to learning\n'
for rate in 0.03 0.1; do
    run hpclcae simulate run/paper.toml "${old[@]}" --replicas 1 5 50 200 --grid 2x2 --servers 400 --minibatches 1000 \
        --learn run/simulated.toml --learn-set update.rate=$rate --json "$out/staleness-$rate.json" \
        --plot "$out/staleness-$rate.png"
done
run hpclcae simulate run/paper.toml "${old[@]}" --replicas 5 50 200 --grid 2x2 --servers 400 --minibatches 1000 \
    --learn run/simulated.toml --learn-set update.rate=0.1 --learn-set update.staleness_scaled=true
