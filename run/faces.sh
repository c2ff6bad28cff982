#!/usr/bin/env bash
# Faces anywhere in larger frames: run/faces.toml from frames to tables, for some seeds.
#
#   bash run/faces.sh [SEEDS] [FOLDER]     SEEDS (default: "0"); FOLDER (default: quickstart) has the quick start's data
#
# About 6 minutes for a seed on two cores. What is there already is kept: after an interruption, run it again.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-0}
folder=${2:-quickstart}
. run/setup.sh images figures
data=$folder/data
[ -d "$data/sources" ] || hpclcae data fetch --out "$data/sources"

frames() {  # NAME SPLIT COUNT OPTION...
    local file=$data/$1.h5 split=$2 count=$3
    shift 3
    [ -f "$file" ] || hpclcae data frames "$data/sources" --split "$split" --size 64 --channels grey --count "$count" --out "$file" "$@"
}
frames train64 train 36000 --place 0.2 --face-size 0.5 0.8 --pairs
frames test64 test 3000 --place 0.2 --face-size 0.5 0.8
frames test64-whole test 3000 --place anywhere --face-size 0.35 0.7

runs=()
for seed in $seeds; do
    run=$folder/runs/faces-$seed
    hpclcae train run/faces.toml --out "$run" --resume --set "train.seed=$seed" \
        --set "data.train=$data/train64.h5" --set "data.test=$data/test64.h5"
    runs+=("$run")
done
for test in test64 test64-whole; do
    hpclcae neurons "${runs[@]}" --test "$data/$test.h5" --out "$folder/faces/$test"
done
