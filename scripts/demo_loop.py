"""The whole loop: images degrade, drift opens an incident, people label, a better model takes over.

Everything is real: Dagster's daemon with queue and sensor, the served bento, HTTP. Only the people who label
are this script, which knows what it drew. Left in `data/demo_loop`, or in the folder that EMOTION_DATA_DIR names.

    make demo-loop
    make demo-loop FACES=folder   # images of yours, in folders named by emotion, instead of drawn faces
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from demo import BIN, CHECKOUT, free_port, is_chosen, run_job, say, shell_settings
from PIL import Image, ImageFilter

from emotion_assets.core.classes import DEFAULT_CLASSES, EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset, draw_face
from emotion_assets.steps.registry.registry import read_decision

_MIN_IMAGES = 100


@dataclass
class LoopResult:
    """What happened, for the end of the demo and for its test."""

    first_model: str = ""
    second_model: str = ""
    accuracy_before_drift: float = 0.0
    accuracy_in_drift: float = 0.0
    accuracy_after_retraining: float = 0.0
    state_before_drift: str = ""
    cause: str = ""
    severity: str = ""
    num_requested: int = 0
    num_labels: int = 0
    trigger: str = ""
    num_failed_requests: int = 0
    seconds: float = 0.0


def degrade(face: bytes, rng: np.random.Generator) -> bytes:
    """Degrade a face as a camera does that was turned, went out of focus and has too little light."""
    image = Image.open(io.BytesIO(face)).convert("L")
    image = image.rotate(55 + rng.normal(0, 4), Image.Resampling.BILINEAR, fillcolor=110)
    image = image.filter(ImageFilter.GaussianBlur(1.2)).point(lambda gray: int(gray * 0.45))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


class DrawnFaces:
    """Faces drawn on demand."""

    run_config = CHECKOUT / "scripts" / "demo_run.yaml"

    def deliver(self, home: Path, num_per_class: int) -> int:
        """Put the first delivery into `raw/`; return its number of images."""
        draw_dataset(DataPaths(home), num_per_class=num_per_class, seed=0)
        return num_per_class * len(EMOTIONS)

    def requests(self, num: int, seed: int, *, is_degraded: bool) -> Iterator[tuple[str, bytes]]:
        """Return images that come in later, each with what it shows."""
        rng = np.random.default_rng(seed)
        for number in range(num):
            emotion = EMOTIONS[number % len(EMOTIONS)]
            face = draw_face(emotion, rng)
            yield emotion, degrade(face, rng) if is_degraded else face


class ImageFolder:
    """Images of a folder: a part is the first delivery, the others come in later."""

    run_config = CHECKOUT / "scripts" / "loop_run.yaml"

    def __init__(self, faces_dir: Path) -> None:
        """Find what lies in folders named by emotion below `faces_dir`."""
        self._paths: dict[str, list[Path]] = {emotion: [] for emotion in EMOTIONS}
        rng = np.random.default_rng(0)
        for folder in sorted(path for path in faces_dir.iterdir() if path.is_dir()):
            emotion = DEFAULT_CLASSES.find(folder.name)
            if emotion:
                self._paths[emotion] += [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for paths in self._paths.values():
            rng.shuffle(paths)  # type: ignore[arg-type]
        if fewest := [emotion for emotion, paths in self._paths.items() if len(paths) < 2 * _MIN_IMAGES]:
            raise SystemExit(f"{faces_dir} needs {2 * _MIN_IMAGES} images of each emotion: {fewest} has fewer.")

    def deliver(self, home: Path, num_per_class: int) -> int:
        """Put the first delivery into `raw/`; return its number of images."""
        num = 0
        for emotion, paths in self._paths.items():
            first, self._paths[emotion] = paths[: len(paths) // 2][:num_per_class], paths[len(paths) // 2 :]
            (home / "raw" / emotion).mkdir(parents=True, exist_ok=True)
            for number, path in enumerate(first):  # two subfolders may have files of one name
                shutil.copyfile(path, home / "raw" / emotion / f"{number:05}_{path.name}")
            num += len(first)
        return num

    def requests(self, num: int, seed: int, *, is_degraded: bool) -> Iterator[tuple[str, bytes]]:
        """Return images that come in later, each with what it shows."""
        rng = np.random.default_rng(seed)
        for number in range(num):
            emotion = EMOTIONS[number % len(EMOTIONS)]
            face = self._paths[emotion][int(rng.integers(len(self._paths[emotion])))].read_bytes()
            yield emotion, degrade(face, rng) if is_degraded else face


class Stage:
    """Folders, environment and the two programs that run all the time."""

    def __init__(self, home: Path, run_config: Path) -> None:
        """Use `home` for everything."""
        self.home, self.port = home, free_port()
        self.environment = os.environ | {
            "EMOTION_DATA_DIR": str(home),
            "BENTOML_HOME": str(home / "bentoml"),
            "DAGSTER_HOME": str(home / "dagster_home"),
            "EMOTION_RUN_CONFIG": str(run_config),
            "EMOTION_QUIET_SECONDS": "5",
            "EMOTION_STORE_IMAGES": "1",
            "EMOTION_WORKERS": "1",
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONWARNINGS": "ignore",
        }
        (home / "dagster_home").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / "dagster_home" / "dagster.yaml", home / "dagster_home" / "dagster.yaml")

    def dagster(self, *words: str) -> str:
        """Run a Dagster command to its end and return what it printed."""
        command = [str(BIN / "dagster"), *words, "-m", "emotion_assets.definitions"]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=self.environment, check=False, capture_output=True, text=True, timeout=900
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def running(self, name: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Keep a program running, its output in a file, and stop it and its children at the end."""
        with (
            (self.home / f"{name}.log").open("w") as log,
            subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=CHECKOUT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)

    def champion(self) -> str:
        """The version that the gate accepted last."""
        return str(json.loads((self.home / "models" / "champion.json").read_text())["version"])

    def accepted_after(self, version: str) -> str | None:
        """Return the champion if it is newer than `version`, None while nothing was decided.

        Raises:
            SystemExit: the gate rejected a newer model; its reasons are in the message.
        """
        champion = self.champion()
        if champion > version:
            return champion
        for path in sorted(self.home.glob("reports/evaluation/*/scores.json")):
            gate = read_decision(path.parent)
            if gate.candidate > version and not gate.is_accepted:
                raise SystemExit(
                    f"The gate rejected {gate.candidate}: {' '.join(gate.reasons)} The first model continues "
                    "serving, as it should, and the loop stays open. Try again with more images."
                )
        return None

    def check_drift(self) -> dict[str, Any]:
        """Let the daemon run `check_drift`; return its verdict, once the report is there."""
        time.sleep(2)  # the service writes its log a moment after the response
        before = set(self.home.glob("reports/drift/*/verdict.json"))
        self.dagster("job", "launch", "-j", "check_drift")

        def fresh() -> set[Path]:
            return set(self.home.glob("reports/drift/*/verdict.json")) - before

        wait_for("a drift report", lambda: bool(fresh()), 240)
        return dict(json.loads(max(fresh()).read_text()))


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"Not within {seconds:g} s: {what}. The logs lie beside the data.")
        time.sleep(1)


class Client:
    """Somebody who asks the service, and knows what is right."""

    def __init__(self, port: int, result: LoopResult) -> None:
        """Ask on `port`."""
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        self._result = result

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_ready(self) -> bool:
        """Return whether the service is ready."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx2.HTTPError:
            return False

    def version(self) -> str:
        """The model that is served."""
        return str(self._http.get("/model").json()["model_version"])

    def predict(self, images: Iterator[tuple[str, bytes]]) -> tuple[float, dict[str, str]]:
        """Send images; return the accuracy, and what each prediction's image really shows."""
        truth, num_correct = {}, 0
        for emotion, content in images:
            response = self._http.post("/predict", content=content, headers={"Content-Type": "image/jpeg"})
            if response.status_code != 200:
                self._result.num_failed_requests += 1
                continue
            prediction = response.json()
            truth[prediction["prediction_id"]] = emotion
            num_correct += prediction["emotion"] == emotion
        return num_correct / max(1, len(truth)), truth

    def label(self, truth: dict[str, str]) -> int:
        """Send labels; return how many were taken."""
        responses = [
            self._http.post("/feedback", json={"prediction_id": name, "emotion": emotion})
            for name, emotion in truth.items()
        ]
        return sum(response.status_code == 200 for response in responses)


def run_loop(
    home: Path,
    num_per_class: int,
    num_images: int,
    tell: Callable[[str], None] = say,
    faces: DrawnFaces | ImageFolder | None = None,
) -> LoopResult:
    """Run the whole loop below `home` and return what happened."""
    faces = faces or DrawnFaces()
    result, stage, started = LoopResult(), Stage(home, faces.run_config), time.monotonic()

    def report(text: str) -> None:
        tell(f"{time.monotonic() - started:5.0f} s  {text}")

    num = faces.deliver(home, num_per_class)
    report(f"Running the Dagster job `retrain` on {num:,} faces")
    if not run_job(stage.environment, home / "retrain.log", faces.run_config):
        raise SystemExit(1)
    result.first_model = stage.champion()
    report(f"Model {result.first_model} was accepted; starting the service, and Dagster's daemon with drift_sensor on")
    serve = ("bentoml", "serve", "emotion_service:latest", "--host", "127.0.0.1", "--port", str(stage.port))
    with (
        stage.running("service", *serve),
        stage.running("daemon", "dagster-daemon", "run", "-m", "emotion_assets.definitions"),
        contextlib.closing(Client(stage.port, result)) as client,
    ):
        wait_for("the service is ready", client.is_ready, 120)
        stage.dagster("sensor", "start", "drift_sensor")
        result.accuracy_before_drift, _ = client.predict(faces.requests(num_images, seed=1, is_degraded=False))
        report(f"{num_images} images: {result.accuracy_before_drift:.0%} are predicted correctly")
        good = stage.check_drift()
        result.state_before_drift = good["state"]
        report(f"check_drift says: {good['state']}, {good['cause']}")

        report("The camera is turned, out of focus, and the light goes")
        truth = _until_incident(stage, client, result, partial(faces.requests, num_images, is_degraded=True), report)
        report(f"INCIDENT ({result.severity}): {result.cause} {result.num_requested} labels are requested")

        result.num_labels = client.label(truth)
        report(f"People gave {result.num_labels} labels; collect_feedback turns them into training images")
        stage.dagster("job", "launch", "-j", "collect_feedback")
        report("Waiting for drift_sensor: now there is something new to learn from")
        wait_for("a retrain by drift_sensor", lambda: stage.accepted_after(result.first_model) is not None, 1800)
        result.second_model = stage.champion()
        result.trigger = _trigger_of_last_retrain(stage)
        report(f"drift_sensor started a run, and the gate accepted {result.second_model}")
        wait_for("the service to follow", lambda: client.version() == result.second_model, 60)
        report("The service predicts with the new model, without a restart")
        result.accuracy_after_retraining, _ = client.predict(faces.requests(num_images, seed=99, is_degraded=True))
        # The same faces as before the alarm would be known by now; these are new ones.
        report(
            f"New degraded images: {result.accuracy_in_drift:.0%} were predicted correctly before, "
            f"{result.accuracy_after_retraining:.0%} are now"
        )
    result.seconds = time.monotonic() - started
    return result


def _until_incident(
    stage: Stage,
    client: Client,
    result: LoopResult,
    degraded: Callable[..., Iterator[tuple[str, bytes]]],
    report: Callable[[str], None],
) -> dict[str, str]:
    """Send degraded images, window by window, until a drift report opens an incident; return their true emotions."""
    result.accuracy_in_drift, truth = client.predict(degraded(seed=2))
    report(f"{len(truth)} degraded images: {result.accuracy_in_drift:.0%} are predicted correctly, and nobody knows")
    for window in (1, 2, 3):
        verdict = stage.check_drift()
        report(f"check_drift, window {window}: {verdict['state']}: {verdict['cause']}")
        if verdict["window"]["is_incident"]:
            result.cause, result.severity = verdict["cause"], verdict["severity"]
            queue = json.loads((stage.home / "feedback" / "requested.json").read_text())
            result.num_requested = len(queue["predictions"])
            return truth
        _, more = client.predict(degraded(seed=10 + window))
        truth |= more
    raise SystemExit("Three windows of degraded images opened no incident.")


def _trigger_of_last_retrain(stage: Stage) -> str:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(stage.home / "dagster_home")) as instance:
        runs = instance.get_run_records(dg.RunsFilter(job_name="retrain"), limit=1)
        return str(runs[0].dagster_run.tags.get("trigger", ""))


def main() -> int:
    """Run the demo in an empty folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, help="images in folders named by emotion; without it faces are drawn")
    options = parser.parse_args()
    # A plain kill must not leave the service and the daemon behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    faces = ImageFolder(options.faces) if options.faces else None
    home = Path(os.environ["EMOTION_DATA_DIR"]) if is_chosen() else CHECKOUT / "data" / "demo_loop"
    if home == CHECKOUT / "data" / "demo_loop":
        shutil.rmtree(home, ignore_errors=True)
    elif home.exists() and any(home.iterdir()):
        say(f"{home} is not empty, and the demo begins from nothing. Name another folder, or unset EMOTION_DATA_DIR.")
        return 1
    num_per_class, num_images = (800, 500) if faces else (160, 300)
    result = run_loop(home.absolute(), num_per_class, num_images, faces=faces)
    (home / "result.json").write_text(json.dumps(asdict(result), indent=2) + "\n")
    say(
        f"\nThe loop closed in {result.seconds / 60:.1f} minutes. Next:\n"
        f"  make ui {shell_settings(home.absolute())}\n      runs, sensor ticks and drift reports, http://localhost:3000"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
