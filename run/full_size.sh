#!/usr/bin/env bash
# The paper's network at full size on one machine: 1,144,863,072 encoder weights, 200x200 colour frames, two ranks.
#
#   bash run/full_size.sh [STEPS] [FOLDER]     STEPS (default: 30); FOLDER (default: quickstart) has the quick start's data
#
# It takes 17 s a step, 14 GB of memory and 28 GB of disk on two cores, and ten minutes for frames and tables. What is
# there already is kept: after an interruption, run it again.
set -euo pipefail
cd "$(dirname "$0")/.."
steps=${1:-30}
folder=${2:-quickstart}
. run/setup.sh images figures
data=$folder/data run=$folder/runs/full-size
[ -d "$data/sources" ] || hpclcae data fetch --out "$data/sources"
[ -f "$data/train200.h5" ] ||
    hpclcae data frames "$data/sources" --split train --size 200 --channels rgb --count 3000 --out "$data/train200.h5"
[ -f "$data/test200.h5" ] ||
    hpclcae data frames "$data/sources" --split test --size 200 --channels rgb --count 600 --out "$data/test200.h5"

# Momentum's velocity, another 10.3 GB, would fill the machine.
hpclcae launch run/paper.toml --out "$run" --grid 1x2 --resume --set update.rule=sgd --set "train.steps=$steps" \
    --set "train.checkpoint_every=15" --set train.log_every=1 \
    --set "data.train=$data/train200.h5" --set "data.test=$data/test200.h5"
hpclcae checkpoint info "$run"
hpclcae neurons "$run" --filters 0 --random-seeds 0 --training-images 0
hpclcae experiment stimuli "$run" --neuron 3/62,62,4 --starts 1 --iterations 10
