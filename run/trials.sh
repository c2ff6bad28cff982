#!/usr/bin/env bash
# The trials behind notes/reproduction.md: run/desk.toml and one change at a time, over seeds.
#
#   bash run/trials.sh [SEEDS] [TRIAL...]     SEEDS (default: "0 1"); TRIALs (default: all, about a minute each and seed)
#
# Needs the data of the quick start (bash run/quickstart.sh); writes runs and a table into quickstart/trials/.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-0 1}
shift || true
. run/setup.sh images figures
data=quickstart/data
out=quickstart/trials
[ -f "$data/test.h5" ] || { echo "$data/test.h5 is missing: bash run/quickstart.sh makes it" >&2; exit 1; }
mkdir -p "$out"

all_stages() { printf 'stages.%s.'"$1"'\n' 0 1 2; }
changes() {  # the settings of a trial, one a line
    case $1 in
        desk) ;;
        tied) all_stages 'weights="tied"'; all_stages 'encoder_norm="unit"' ;;
        unit-encoder) all_stages 'encoder_norm="unit"'; all_stages 'decoder_norm="free"' ;;
        lcn-first) echo stages.0.lcn=3 ;;
        lcn-all) all_stages lcn=3; all_stages pooling=3 ;;
        pooling-5) echo stages.0.pooling=5 ;;
        lambda-0.1) all_stages sparsity=0.1 ;;
        lambda-2) all_stages sparsity=2.0 ;;
        no-whitening) echo preprocess.whitening=0 ;;
        whitening-1) echo preprocess.whitening_epsilon=1.0 ;;
        stopped) printf '%s\n' 'train.gradient="stopped"' train.steps=1000 ;;
        joint) printf '%s\n' 'train.gradient="joint"' train.steps=1000 ;;
        momentum) printf '%s\n' 'update.rule="momentum"' update.rate=0.5 ;;
        *) echo "there is no trial '$1'" >&2; return 1 ;;
    esac
}
trials=${*:-desk tied unit-encoder lcn-first lcn-all pooling-5 lambda-0.1 lambda-2 no-whitening whitening-1 stopped joint momentum}

for trial in $trials; do
    for seed in $seeds; do
        run=$out/$trial-$seed
        settings=(--set "data.train=$data/train.h5" --set "data.test=$data/test.h5" --set "train.seed=$seed")
        while read -r change; do [ -z "$change" ] || settings+=(--set "$change"); done < <(changes "$trial")
        hpclcae train run/desk.toml --out "$run" --resume "${settings[@]}" > "$run.log" 2>&1 \
            && hpclcae neurons "$run" --random-seeds 2 >> "$run.log" 2>&1 \
            || { echo "$trial, seed $seed: failed: $(tail -n 1 "$run.log")"; continue; }
        python - "$run" "$trial" "$seed" <<'PY'
import json, sys
results = json.load(open(f"{sys.argv[1]}/neurons.json"))
rows = {row["name"]: row for row in results["rows"]}
cells = [f"{name.replace('trained, ', '')}: {100 * row['accuracy']:.1f} ({100 * row['honest']:.1f})"
         for name, row in rows.items() if name.startswith("trained")]
random = max(100 * row["accuracy"] for name, row in rows.items() if name.startswith("random"))
index = results["first_stage_filters"]["orientation"]
print(f"{sys.argv[2]:13} seed {sys.argv[3]}  " + "  ".join(cells) + f"  best random: {random:.1f}  orientation: {index:.2f}")
PY
    done
done | tee -a "$out/table.txt"
