"""The whole product in one go: draw faces, run the job `retrain`, serve the bento, predict one face.

Everything is left in `data/demo`, or in EMOTION_DATA_DIR if that holds no images of yours. With the path of a
`classes.yaml` as argument, other classes than the five emotions are drawn, in `data/demo-<name of the file>`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_assets.core.classes import read_classes
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import is_remote
from emotion_assets.demo.faces import draw_dataset, draw_face

CHECKOUT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NUM_PER_CLASS = 160
DIFFICULTY = 0.7
READY_SECONDS = 120

# Requests to this machine never go through http_proxy.
LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# What a person follows: the steps' own lines, and the end of each step.
_LINE = re.compile(r" - INFO - retrain - [0-9a-f-]{36} - (?P<step>\w+) - (?P<text>.*)")
_STEP_END = re.compile(r" - (?P<step>\w+) - STEP_(?P<end>SUCCESS|FAILURE) - .* (?:in|of) (?P<time>[\d.]+m?s)?")


def main() -> int:
    """Run the demo and return the exit status."""
    classes_file = Path(sys.argv[1]).expanduser() if len(sys.argv) > 1 else None  # zsh leaves CLASSES=~/… to us
    folder = f"demo-{classes_file.stem}" if classes_file else "demo"
    if is_remote(os.environ.get("EMOTION_DATA_DIR", "")):
        say("The demo draws into a folder. Unset EMOTION_DATA_DIR, or name an empty one.")
        return 1
    home = Path(os.environ["EMOTION_DATA_DIR"] if is_chosen() else CHECKOUT / "data" / folder).absolute()
    environment = os.environ | {
        "EMOTION_DATA_DIR": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "DAGSTER_HOME": str(home / "dagster_home"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONWARNINGS": "ignore",
    }
    if _holds_images(home):
        say(f"{home / 'raw'} holds your own images, and the demo draws faces.")
        say("Unset EMOTION_DATA_DIR, or name an empty folder.")
        return 1
    (home / "dagster_home").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CHECKOUT / "dagster_home" / "dagster.yaml", home / "dagster_home" / "dagster.yaml")
    paths = DataPaths(home)
    try:
        if classes_file:
            classes = read_classes(classes_file)
            if paths.classes.exists() and read_classes(paths.classes).names != classes.names:
                say(f"{home} has a demo of other classes. Remove it first: rm -r {home}")
                return 1
            shutil.copyfile(classes_file, paths.classes)
        classes = read_classes(paths.classes)
    except (OSError, UnusableDataError) as error:
        say(str(error))
        return 1
    say(f"1/4  Drawing faces: {classes}")
    num_faces = draw_dataset(paths, num_per_class=NUM_PER_CLASS, seed=0, difficulty=DIFFICULTY)
    say(f"2/4  Running the Dagster job `retrain` on {num_faces} drawn faces")
    if not run_job(environment, home / "demo.log", CHECKOUT / "scripts" / "demo_run.yaml"):
        return 1
    say("3/4  Starting the service")
    return predict_one(environment, home, classes.names)


def shell_settings(home: Path) -> str:
    folders = {"EMOTION_DATA_DIR": home, "BENTOML_HOME": home / "bentoml", "DAGSTER_HOME": home / "dagster_home"}
    return " ".join(f"{name}={shlex.quote(str(folder))}" for name, folder in folders.items())


def is_chosen() -> bool:
    """Return whether the user named a data folder; the Makefile's default is not a choice."""
    chosen = os.environ.get("EMOTION_DATA_DIR")
    return chosen is not None and Path(chosen).absolute() != CHECKOUT / "data"


def _holds_images(home: Path) -> bool:
    """Return whether `raw/` has anything that an earlier demo did not draw."""
    return any(path.is_file() and path.parent.name not in {"demo", "feedback"} for path in (home / "raw").rglob("*"))


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def run_job(environment: dict[str, str], log_path: Path, run_config: Path) -> bool:
    """Run `retrain` in a process of its own, show its progress, and tell whether it succeeded."""
    command = [str(BIN / "dagster"), "job", "execute", "-m", "emotion_assets.definitions", "-j", "retrain"]
    command += ["-c", str(run_config)]
    with (
        log_path.open("w") as log,
        subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            if found := _LINE.search(line):
                say(f"     {found['step']}: {found['text']}")
            elif found := _STEP_END.search(line):
                say(f"     {found['step']}: {'done' if found['end'] == 'SUCCESS' else 'FAILED'}")
    if process.returncode:
        say("".join(log_path.read_text().splitlines(keepends=True)[-40:]))
        say(f"The job failed. Its last lines are above, all of them in {log_path}.")
        say(f"If an earlier version of this code wrote {log_path.parent}, remove that folder and start again.")
    return process.returncode == 0


def predict_one(environment: dict[str, str], home: Path, emotions: Sequence[str]) -> int:
    """Start the bento, send it a new face, print the prediction, stop it."""
    port = free_port()
    log_path = home / "service.log"
    command = [str(BIN / "bentoml"), "serve", "emotion_service:latest", "--host", "127.0.0.1", "--port", str(port)]
    with (
        log_path.open("w") as log,
        subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT) as service,
    ):
        try:
            if not _is_ready(port, service):
                say(log_path.read_text())
                say("The service did not start; see its log above.")
                return 1
            emotion = emotions[2 % len(emotions)]
            face = draw_face(emotion, np.random.default_rng(12345), emotions=emotions)
            (home / "question.jpg").write_bytes(face)
            say(f"4/4  Sending one new {emotion} face: POST http://127.0.0.1:{port}/predict")
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/predict", face, {"Content-Type": "image/jpeg"}, method="POST"
            )
            with LOOPBACK.open(request, timeout=30) as response:
                prediction = json.load(response)
        finally:
            service.terminate()
            service.wait(timeout=60)
    say(json.dumps(prediction, indent=2))
    predicted = prediction["emotion"]
    where = "DEMO=1" if home == CHECKOUT / "data" / "demo" else shell_settings(home)
    say(
        f"\nThe service predicts {predicted} ({prediction['probabilities'][predicted]:.1%}). Next:\n"
        f"  make ui {where}\n      the assets with every number and image, http://localhost:3000\n"
        f"  make serve {where}\n      the page, http://localhost:3001\n"
        "  your own images\n      `make import FILE=…`, or copy them to data/raw/<Class>/; then `make ui`"
    )
    return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(port: int, service: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and service.poll() is None:
        try:
            with LOOPBACK.open(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main())
