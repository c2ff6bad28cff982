#!/usr/bin/env bash
# The trials behind notes/reproduction.md: run/desk.toml and one change at a time, over seeds.
#
#   bash run/trials.sh [SEEDS] [TRIAL...]     SEEDS (default: "0 1 2"); TRIALs (default: all, some two minutes of a core each)
#
# Needs the data of the quick start (bash run/quickstart.sh); writes runs and a table into quickstart/trials/, or into
# $TRIALS. Only the development half of the test set is looked at (hpclcae neurons --development); JOBS=2 runs two at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-0 1 2}
shift || true
. run/setup.sh images figures
data=${DATA:-quickstart/data}
out=${TRIALS:-quickstart/trials}
[ -f "$data/test.h5" ] || { echo "$data/test.h5 is missing: bash run/quickstart.sh makes it" >&2; exit 1; }
mkdir -p "$out"

changes() {  # the settings of a trial, one a line
    case $1 in
        desk) ;;
        # what stands between stage 1 and stage 2
        lcn) printf '%s\n' stages.0.{log,contrast}=false stages.0.lcn=5 stages.0.lcn_border=same ;;
        lcn-alone) printf '%s\n' stages.0.{log,contrast,standardise}=false stages.0.lcn=5 stages.0.lcn_border=same ;;
        # with the usual border it loses 4 of 13 positions, so the next stage has windows of 8 of 9
        lcn-clipped) printf '%s\n' stages.0.{log,contrast}=false stages.0.lcn=5 stages.1.receptive_field=8 ;;
        standardised) printf 'stages.0.%s\n' log=false contrast=false ;;
        no-log) echo stages.0.log=false ;;
        no-contrast) echo stages.0.contrast=false ;;
        no-whitening) printf '%s\n' stages.0.whiten=0 stages.1.sparsity=1 ;;
        nothing) printf '%s\n' stages.{0,1}.{log,standardise,contrast}=false stages.{0,1}.whiten=0 stages.1.sparsity=1 stages.2.sparsity=1 ;;
        top-unwhitened) printf '%s\n' stages.1.whiten=0 stages.2.sparsity=1 ;;
        # what is in the frames
        faces-28|faces-10|no-faces) echo "data.train=$data/train-$1.h5" ;;
        # the top's directions are those that two places of the same frame have in common, as in run/faces.toml
        pairs) printf '%s\n' "data.train=$data/train-$1.h5" stages.1.whiten_by=pairs stages.1.window=2 stages.2.pooling=1 ;;
        # how it is trained
        untrained-first) printf '%s\n' stages.0.steps=1 train.steps=6001 ;;
        sparsity-6) printf '%s\n' stages.1.sparsity=6.0 stages.2.sparsity=6.0 ;;
        few-updates) printf '%s\n' stages.1.steps=300 stages.2.steps=300 train.steps=3100 ;;
        joint) printf '%s\n' "train.weights=$out/desk-$2" train.gradient=joint train.cache=none train.steps=1000 update.rate=0.002 \
                   train.condition_every=250 stages.{0,1,2}.{steps,batch}=0 stages.{0,1,2}.rate=0.0 ;;
        *) echo "there is no trial '$1'" >&2; return 1 ;;
    esac
}
frames() {  # TRIAL OPTION...: the training frames of a trial that has its own
    local file=$data/train-$1.h5 log=$out/frames-$1.log
    shift
    [ -f "$file" ] || hpclcae data frames "$data/sources" --split train --size 32 --channels grey --count 36000 --out "$file" \
        "$@" > "$log" 2>&1
}
trial() {  # TRIAL SEED
    local run=$out/$1-$2 settings=(--set "data.train=$data/train.h5" --set "data.test=$data/test.h5" --set "train.seed=$2") change
    while read -r change; do [ -z "$change" ] || settings+=(--set "$change"); done < <(changes "$1" "$2")
    hpclcae train run/desk.toml --out "$run" --resume "${settings[@]}" > "$run.log" 2>&1 \
        && hpclcae neurons "$run" --development --filters 0 --random-seeds 0 >> "$run.log" 2>&1 \
        || { echo "$1, seed $2: failed: $(tail -n 1 "$run.log")"; return; }
    python - "$run" "$1" "$2" <<'PY'
import json, sys
rows = {row["name"]: row for row in json.load(open(f"{sys.argv[1]}/neurons.json"))["rows"]}
cells = [f"{name.removeprefix('trained, ')}: {100 * row['accuracy']:.1f} ({100 * row['honest']:.1f})"
         for name, row in rows.items() if name.startswith("trained")]
cells += [f"by training labels: {100 * row['honest']:.1f}" for name, row in rows.items() if name.endswith("training labels")]
print(f"{sys.argv[2]:15} seed {sys.argv[3]}  " + "  ".join(cells))
PY
}
# What runs in the background does not hear Ctrl-C; TERM makes it leave a checkpoint.
trap 'trap "" TERM; kill 0; wait; exit 130' INT
trials=${*:-desk lcn lcn-alone lcn-clipped standardised no-log no-contrast no-whitening nothing top-unwhitened faces-28 faces-10 no-faces pairs untrained-first sparsity-6 few-updates joint}
for name in $trials; do
    case $name in
        faces-28) frames "$name" --faces 0.2 --heads 0.08 ;;
        faces-10) frames "$name" --faces 0.07 --heads 0.03 ;;
        no-faces) frames "$name" --faces 0 --heads 0 ;;
        pairs) frames "$name" --pairs ;;
    esac
done
for name in $trials; do
    if [ "$name" = joint ]; then wait; fi  # it begins with the runs of desk
    for seed in $seeds; do
        while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-1}" ]; do wait -n || true; done
        trial "$name" "$seed" | tee -a "$out/table.txt" &
    done
done
wait
