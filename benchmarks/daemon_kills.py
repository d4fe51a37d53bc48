"""Deliver a thousand files over five minutes while Dagster's daemon is killed twenty times, and count what is lost.

Usage: python -m benchmarks.daemon_kills SCRATCH_DIR [--files 1000] [--minutes 5] [--kills 20] [--seed N]

Files arrive as by a slow copy: half of the bytes under the final name, the rest a moment later. The daemon is killed
with its whole process group (-9), runs included, at random moments, and restarted. In the end every file must be in the
catalogue, accepted, and the last run of `retrain` must have read the folder as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd

from emotion_assets.assets.ingest import SIGNATURE
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset, draw_face
from emotion_assets.steps.ingest.export import read_catalogue
from emotion_assets.steps.ingest.scan import folder_state

CHECKOUT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
RUN_CONFIG = "ops: {trained_cnn: {config: {preset: quick, epochs: 12, width: 12, batch_size: 32}}}\n"
QUIET_SECONDS = 10


class Machine:
    """A data root, its environment, and the daemon."""

    def __init__(self, home: Path) -> None:
        self.home, self.paths = home, DataPaths(home)
        self.dagster_home = home / "dagster_home"
        self.dagster_home.mkdir(parents=True)
        settings = (CHECKOUT / "dagster_home" / "dagster.yaml").read_text()
        # A dead run is noticed after ten seconds here instead of a minute, or five minutes would hold few runs.
        (self.dagster_home / "dagster.yaml").write_text(
            settings.replace("poll_interval_seconds: 60", "poll_interval_seconds: 10")
        )
        (home / "run.yaml").write_text(RUN_CONFIG)
        self.environment = os.environ | {
            "EMOTION_DATA_DIR": str(home),
            "BENTOML_HOME": str(home / "bentoml"),
            "DAGSTER_HOME": str(self.dagster_home),
            "EMOTION_RUN_CONFIG": str(home / "run.yaml"),
            "EMOTION_QUIET_SECONDS": str(QUIET_SECONDS),
            "PYTHONWARNINGS": "ignore",
        }
        self.daemon: subprocess.Popen[bytes] | None = None

    def dagster(self, *words: str) -> None:
        command = [str(BIN / "dagster"), *words, "-m", "emotion_assets.definitions"]
        subprocess.run(command, cwd=CHECKOUT, env=self.environment, check=True, capture_output=True)

    def start(self) -> None:
        with (self.home / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [str(BIN / "dagster-daemon"), "run", "-m", "emotion_assets.definitions"],
                cwd=CHECKOUT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        assert self.daemon
        os.killpg(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()

    def retrains(self) -> list[dg.DagsterRun]:
        with dg.DagsterInstance.from_config(str(self.dagster_home)) as instance:
            return [record.dagster_run for record in instance.get_run_records(dg.RunsFilter(job_name="retrain"))]

    def ingested_signature(self) -> str:
        """Return the signature of `raw/` that the last ingest saw; empty if files remained to be retried."""
        with dg.DagsterInstance.from_config(str(self.dagster_home)) as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey("raw_images"))
        assert event
        assert event.asset_materialization
        value = event.asset_materialization.metadata.get(SIGNATURE)
        return str(value.value) if value else ""


def deliver(raw_dir: Path, num: int, seconds: float, chance: random.Random) -> None:
    rng = np.random.default_rng(chance.randrange(2**32))
    started = time.monotonic()
    for number in range(num):
        emotion = EMOTIONS[number % 5]
        content = draw_face(emotion, rng)
        path = raw_dir / emotion.capitalize() / "delivery" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(max(0.0, started + seconds * (number + 1) / num - time.monotonic()))
            file.write(content[len(content) // 2 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scratch_dir", type=Path)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    machine = Machine(options.scratch_dir.resolve())
    raw_dir = machine.paths.raw
    draw_dataset(machine.paths, num_per_class=80, seed=11)
    machine.dagster("job", "execute", "-j", "retrain", "-c", str(machine.home / "run.yaml"))
    machine.start()
    time.sleep(15)
    machine.dagster("sensor", "start", "new_images_sensor")
    seconds = options.minutes * 60
    delivery = threading.Thread(target=deliver, args=(raw_dir, options.files, seconds, rng))
    delivery.start()
    began = time.monotonic()
    for moment in sorted(rng.uniform(0, seconds) for _ in range(options.kills)):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        machine.kill()
        machine.start()
    delivery.join()
    delivered = time.monotonic()
    while machine.ingested_signature() != folder_state(raw_dir).signature or any(
        not run.is_finished for run in machine.retrains()
    ):
        if time.monotonic() - delivered > 900:
            break
        time.sleep(2)
    waited = time.monotonic() - delivered
    machine.kill()

    table = read_catalogue(machine.paths.catalogue)
    arrived = table[table["path"].str.contains("delivery")]
    runs = machine.retrains()[:-1]
    states = pd.Series([run.status.value for run in runs]).value_counts().to_dict() if runs else {}
    num_accepted = int(arrived["is_accepted"].sum())
    is_complete = machine.ingested_signature() == folder_state(raw_dir).signature
    print(f"| seed | {options.seed} |\n|---|---|")
    print(f"| files delivered, in the catalogue, read completely | {options.files}, {len(arrived)}, {num_accepted} |")
    print(f"| runs that the sensor requested, by status | {json.dumps(states)} |")
    print(f"| everything was ingested | {is_complete}, {waited:.0f} s after the last file |")


if __name__ == "__main__":
    main()
