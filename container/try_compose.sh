#!/usr/bin/env bash
# Run the loop once in the product that `docker compose up` started: train, answer, label, drift.
# Usage: container/try_compose.sh [docker compose | podman-compose …]
set -euo pipefail
cd "$(dirname "$0")/.."
compose=("${@:-docker}" ); [ $# -gt 0 ] || compose=(docker compose)

in_code() { "${compose[@]}" exec -T code "$@"; }
launch() { in_code dagster job execute -m emotion_assets.definitions -j "$@"; }
curl() { command curl --noproxy '*' --silent --show-error --fail "$@"; }

mkdir -p build
in_code python -c "
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset
draw_dataset(DataPaths(Path('/data')), num_per_class=60, seed=0)
Path('/data/run.yaml').write_text('ops: {trained_cnn: {config: {preset: quick, epochs: 12, width: 16, batch_size: 64}}}')"
launch retrain -c /data/run.yaml
curl --retry 60 --retry-delay 2 --retry-all-errors http://localhost:3001/readyz
in_code python -c "
import sys
from pathlib import Path
sys.stdout.buffer.write(next(Path('/data/raw/Happy').rglob('*.jpg')).read_bytes())" > build/question.jpg
for _ in $(seq 120); do
  curl --form image=@build/question.jpg http://localhost:3001/predict > build/answer.json
done
id=$(python3 -c 'import json; print(json.load(open("build/answer.json"))["prediction_id"])')
curl --header 'Content-Type: application/json' --data "{\"prediction_id\": \"$id\", \"emotion\": \"sad\"}" http://localhost:3001/feedback
launch collect_feedback
launch check_drift
curl http://localhost:3000/server_info
curl 'http://localhost:9090/api/v1/query?query=emotion_model_workers' | grep --quiet model_version
echo "The product works: trained, served, labelled, checked for drift, scraped."
