#!/usr/bin/env bash
# Faces anywhere in larger frames: run/faces.toml from frames to tables, for some seeds.
#
#   bash run/faces.sh [SEEDS] [FOLDER] [NETWORK]     SEEDS (default: "0"); FOLDER (default: quickstart) has the quick
#                                                    start's data; NETWORK is 64 (default), 96 or lcn
#
# 96: frames of 96x96, with windows and pools of stage 1 that grow with them; lcn: the paper's contrast normalisation in
# place of logarithm and contrast of a window. About 6 minutes for a seed of 64 on a core; JOBS=2 trains two seeds at a
# time. What is there already is kept: after an interruption, run it again.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-0}
folder=${2:-quickstart}
network=${3:-64}
size=64
changes=()
case $network in
    64) name=faces ;;
    96) name=faces-96 size=96
        changes=(--set data.size=96 --set stages.0.receptive_field=7 --set stages.0.pooling=6 --set stages.0.pooling_stride=3) ;;
    lcn) name=faces-lcn
         changes=(--set stages.0.log=false --set stages.0.contrast=false --set stages.0.lcn=5 --set stages.0.lcn_border=same) ;;
    *) echo "NETWORK = '$network': it is 64, 96 or lcn" >&2; exit 2 ;;
esac

. run/setup.sh images figures
data=$folder/data
[ -d "$data/sources" ] || hpclcae data fetch --out "$data/sources"

frames() {  # NAME SPLIT COUNT OPTION...
    local file=$data/$1.h5 split=$2 count=$3
    shift 3
    [ -f "$file" ] || hpclcae data frames "$data/sources" --split "$split" --size "$size" --channels grey --count "$count" --out "$file" "$@"
}
frames "train$size" train 36000 --place 0.2 --face-size 0.5 0.8 --pairs
frames "test$size" test 3000 --place 0.2 --face-size 0.5 0.8
frames "test$size-whole" test 3000 --place anywhere --face-size 0.35 0.7

train() {  # SEED OPTION...
    local seed=$1
    shift
    hpclcae train run/faces.toml --out "$folder/runs/$name-$seed" --resume --set "train.seed=$seed" \
        --set "data.train=$data/train$size.h5" --set "data.test=$data/test$size.h5" "$@"
}
# What runs in the background does not hear Ctrl-C; TERM makes it leave a checkpoint.
trap 'trap "" TERM; kill 0; wait; exit 130' INT
runs=() started=()
for seed in $seeds; do
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-1}" ]; do wait -n || true; done
    train "$seed" "${changes[@]}" &
    runs+=("$folder/runs/$name-$seed") started+=($!)
done
for process in "${started[@]}"; do wait "$process"; done
for test in "test$size" "test$size-whole"; do
    hpclcae neurons "${runs[@]}" --test "$data/$test.h5" --out "$folder/$name/$test"
done
