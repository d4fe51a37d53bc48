"""Draw flame graphs with py-spy: of `quick` on ten thousand images, or of the service while it predicts.

Usage: python scripts/profiling.py training|service

Both use the data root and BentoML's store that the environment names, change neither, and write below `build/`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from demo import BIN, LOOPBACK, free_port

from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.splits.splits import read_split
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.train import train

OUTPUT = Path(__file__).parents[1] / "build"
SECONDS = 10
NUM_IMAGES = 10_000


def train_a_little() -> None:
    paths = DataPaths(Path(os.environ["EMOTION_DATA_DIR"]))
    epochs = 1 + NUM_IMAGES // len(read_split(paths.splits, "train").pixels)
    with tempfile.TemporaryDirectory() as work_dir:
        train(paths.splits, Path(work_dir), training_config("quick", epochs=epochs))


def profile_training(output: Path) -> None:
    record = [BIN / "py-spy", "record", "--output", output, "--rate", "50", "--"]
    subprocess.run([*record, sys.executable, __file__, "a-little"], check=True)


def profile_service(output: Path) -> None:
    port = free_port()
    serve = [BIN / "bentoml", "serve", "emotion_service:latest", "--host", "127.0.0.1", "--port", str(port)]
    face = draw_face("happy", np.random.default_rng(0))
    address = f"http://127.0.0.1:{port}"
    request = urllib.request.Request(f"{address}/predict", face, {"Content-Type": "image/jpeg"})
    with tempfile.TemporaryDirectory() as data_dir:
        environment = os.environ | {"EMOTION_DATA_DIR": data_dir, "EMOTION_WORKERS": "1"}
        with subprocess.Popen(serve, env=environment) as service:
            try:
                wait_until_ready(f"{address}/readyz")
                record = [BIN / "py-spy", "record", "--pid", str(service.pid), "--subprocesses", "--nonblocking"]
                with subprocess.Popen([*record, "--duration", str(SECONDS), "--output", output]) as profiler:
                    while profiler.poll() is None:
                        LOOPBACK.open(request).read()
            finally:
                service.terminate()


def wait_until_ready(address: str) -> None:
    for _ in range(120):
        try:
            LOOPBACK.open(address).read()
        except OSError:
            time.sleep(0.5)
        else:
            return
    sys.exit("The service did not start. Is a model packed? `make demo`, then `make profile-service DEMO=1`.")


def main() -> None:
    what = sys.argv[1] if len(sys.argv) == 2 else ""
    OUTPUT.mkdir(exist_ok=True)
    output = OUTPUT / f"{what}.svg"
    if what == "a-little":
        train_a_little()
    elif what == "training":
        profile_training(output)
    elif what == "service":
        profile_service(output)
    else:
        sys.exit(__doc__)
    if output.exists():
        print(f"Wrote {output}")


if __name__ == "__main__":
    main()
