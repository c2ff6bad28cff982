#!/usr/bin/env bash
# A real run of two replicas and a server on this machine beside its simulation: rate and staleness. On a quiet machine
# with two cores or more; about three minutes. bash run/validate_simulation.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-validate_simulation}"
mkdir -p "$out"
export OPENBLAS_NUM_THREADS=1
python - "$out/train.h5" <<'PYTHON'
import sys
from hpclcae.data.writer import DatasetWriter
from hpclcae.simulation.images import drawn_images
with DatasetWriter(sys.argv[1], 32, 1) as writer:
    for number, image in enumerate(drawn_images(2000, 32, 1)):
        writer.append(image, source=f"drawn/{number}", group=f"drawn/{number}", original=(32, 32),
                      crop=(0, 0, 32, 32))
PYTHON
rm -rf "$out/run"
hpclcae bench machine --out "$out/machine.toml" --ranks 2 3
hpclcae launch run/plain.toml --out "$out/run" --servers 1 --replicas 2 --set train.gradient=joint --set train.steps=200 \
    --set train.batch=50 --set update.rule=sgd --set update.rate=0.001 --set train.checkpoint_every=1000000 \
    --set "data.train=$out/train.h5"
python - "$out/run/parallel.json" <<'PYTHON'
import json, sys
ranks = json.load(open(sys.argv[1]))
workers = [rank for rank in ranks if "training_seconds" in rank]
server = next(rank for rank in ranks if "staleness" in rank)
counts = server["staleness"]
total = sum(counts)
rate = sum(rank["steps"] / rank["training_seconds"] for rank in workers)
print(f"measured: {rate:.1f} minibatches/s, {50 * rate:,.0f} images/s; staleness "
      f"{sum(n * c for n, c in enumerate(counts)) / total:.2f}, "
      + ", ".join(f"{n}: {100 * c / total:.0f} %" for n, c in enumerate(counts[:6])))
PYTHON
hpclcae simulate run/plain.toml --machine "$out/machine.toml" --replicas 2 --servers 1 --per-node 3 \
    --minibatches 400 --json "$out/simulated.json" --set train.gradient=joint --set train.steps=200 \
    --set train.batch=50 --set update.rule=sgd --set update.rate=0.001 --set train.checkpoint_every=1000000 \
    --set "data.train=$out/train.h5"
python - "$out/simulated.json" <<'PYTHON'
import json, sys
counts = json.load(open(sys.argv[1]))["layouts"][0]["outcome"]["staleness"]
print("simulated staleness: " + ", ".join(f"{n}: {100 * c / sum(counts):.0f} %"
                                          for n, c in enumerate(counts[:6])))
PYTHON
