"""Labels that people gave to predictions: what they say of the model, and the images that they turn into.

A label counts for the prediction that it names. Where the image was kept, it becomes a labelled image
in `raw/<Emotion>/feedback/`, and the next run of the pipeline takes it in like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import PROBABILITY_COLUMNS
from emotion_assets.core.files import listed, write_atomically
from emotion_assets.core.layout import DAY_PATTERN, IMAGE_LOG

FEEDBACK_NAME: Final = "feedback"
COLLECTED_NAME: Final = "collected.txt"
REQUEST_NAME: Final = "sample_for_labelling.csv"
NUM_REQUESTED: Final = 100
MIN_LABELS: Final = 20
"""Below this a fraction of right answers says nothing."""


@dataclass(frozen=True, slots=True)
class CollectedLabels:
    """What became of the labels given so far."""

    num_labels: int
    num_new_files: int
    num_files: int
    num_without_image: int
    """Labels whose image was not kept, or is gone."""
    num_set_aside: int
    """Labels whose image somebody moved or deleted; it does not come back."""


@dataclass(frozen=True, slots=True)
class LabelledAccuracy:
    """How often people agreed with answers that were drawn at random for labelling: the honest verdict.

    Labels that people gave on their own are mostly corrections, and those of odd or uncertain images are of the hard
    ones; neither says how often the model is right.
    """

    num_labels: int
    accuracy: float | None
    low: float | None
    high: float | None
    """Wilson's 95 % interval; None below 20 labels that were given on request."""

    def as_record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Label(NamedTuple):
    """What a person said of a prediction, and when: ISO 8601, UTC."""

    prediction_id: str
    emotion: str
    time: str


def read_labels(feedback_dir: Path) -> Iterator[Label]:
    """Yield the label of every whole label file; anything else is skipped."""
    for path in sorted(feedback_dir.glob("??/*.json")):
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("emotion") in EMOTIONS and record.get("prediction_id") == path.stem:
            yield Label(path.stem, str(record["emotion"]), str(record.get("time", "")))


def collect_feedback(feedback_dir: Path, predictions_dir: Path, raw_dir: Path) -> CollectedLabels:
    """Copy the kept images of labelled predictions to `raw/<Emotion>/feedback/`, each once.

    Args:
        feedback_dir: the service's labels; gets `collected.txt`, the ids of what was copied.
        predictions_dir: with the kept images.
        raw_dir: the labelled images' folder.
    """
    kept = _stored_images(predictions_dir)
    folders = {emotion: raw_dir / emotion.capitalize() / FEEDBACK_NAME for emotion in EMOTIONS}
    there = {emotion: {path.stem for path in folder.glob("*.*")} for emotion, folder in folders.items()}
    collected_path = feedback_dir / COLLECTED_NAME
    before = set(collected_path.read_text().split()) if collected_path.exists() else set()
    collected = set(before)
    num_labels = num_new = num_without = num_set_aside = 0
    for prediction_id, emotion, _ in read_labels(feedback_dir):
        num_labels += 1
        if prediction_id in there[emotion]:
            collected.add(prediction_id)
        elif prediction_id in before:
            num_set_aside += 1
        elif prediction_id in kept:
            source = kept[prediction_id]
            try:
                content = source.read_bytes()
            except FileNotFoundError:
                num_without += 1  # its days were over in this moment
                continue
            write_atomically(folders[emotion] / source.name, content)
            collected.add(prediction_id)
            num_new += 1
        else:
            num_without += 1
    if collected != before:
        write_atomically(collected_path, "".join(f"{name}\n" for name in sorted(collected)))
    num_files = num_labels - num_set_aside - num_without
    return CollectedLabels(num_labels, num_new, num_files, num_without, num_set_aside)


def sample_for_labelling(
    window: pd.DataFrame, is_outlier: npt.NDArray[np.bool_], predictions_dir: Path
) -> pd.DataFrame:
    """Choose up to 100 predictions of a window whose labels would tell most.

    Half are drawn at random, because only those say how good the model is; the others are the outliers and
    the least certain answers, because those teach it most.

    Returns:
        `prediction_id`, `reason` (`random`, `odd` or `uncertain`), `emotion`, `confidence`, and `image`: the
        kept file, or nothing.
    """
    kept = _stored_images(predictions_dir)
    confidence = _confidence(window)
    # Always the same draw: a window that is looked at again asks for the same images.
    order = np.random.default_rng(0).permutation(len(window))
    chosen = dict.fromkeys(order[: NUM_REQUESTED // 2].tolist(), "random")
    for i in _informative_order(confidence, is_outlier):
        if len(chosen) >= NUM_REQUESTED:
            break
        chosen.setdefault(i, "odd" if is_outlier[i] else "uncertain")
    rows = list(chosen)
    names = window["prediction_id"].to_numpy()[rows]
    return pd.DataFrame(
        {
            "prediction_id": names,
            "reason": list(chosen.values()),
            "emotion": window["emotion"].to_numpy()[rows],
            "confidence": confidence[rows].round(4),
            "image": [str(kept.get(name, "")) for name in names],
        }
    )


def most_informative_images(
    window: pd.DataFrame, is_outlier: npt.NDArray[np.bool_], predictions_dir: Path
) -> list[Path]:
    """Return the kept images of a window: odd ones first, then those with the least certain answers."""
    kept = _stored_images(predictions_dir)
    names = window["prediction_id"].to_numpy()
    return [kept[names[i]] for i in _informative_order(_confidence(window), is_outlier) if names[i] in kept]


def _stored_images(predictions_dir: Path) -> dict[str, Path]:
    """Return the images that the service kept, by prediction id."""
    return {path.stem: path for path in listed(predictions_dir / IMAGE_LOG, DAY_PATTERN, "*.*")}


def _confidence(window: pd.DataFrame) -> npt.NDArray[np.float64]:
    return window[list(PROBABILITY_COLUMNS)].max(axis=1).to_numpy()


def _informative_order(confidence: npt.NDArray[np.float64], is_outlier: npt.NDArray[np.bool_]) -> list[int]:
    """Return positions in the window: outliers first, within each kind the least certain answers first."""
    return sorted(range(len(confidence)), key=lambda i: (not is_outlier[i], confidence[i]))


def labelled_accuracy(requests: Mapping[str, Path], feedback_dir: Path) -> LabelledAccuracy:
    """Compare the labels of predictions that were drawn at random with the answers that they belong to.

    Args:
        requests: what `sample_for_labelling` returned, as CSV files, by the time of the request, the oldest first.
        feedback_dir: the service's labels, whose times have the same form.
    """
    asked: dict[str, tuple[str, str]] = {}
    for asked_at, path in requests.items():
        for row in pd.read_csv(path, dtype=str).itertuples():
            if row.reason == "random":
                asked.setdefault(str(row.prediction_id), (str(row.emotion), asked_at))
    before: list[bool] = []
    on_request: list[bool] = []
    for label in read_labels(feedback_dir):
        if label.prediction_id in asked:
            answer, asked_at = asked[label.prediction_id]
            (on_request if label.time >= asked_at else before).append(answer == label.emotion)
    num_labels = len(before) + len(on_request)
    if len(on_request) < MIN_LABELS:
        return LabelledAccuracy(num_labels, None, None, None)
    # What was labelled before anybody asked is known, and mostly corrections; of the others those on request tell.
    fraction = 1 - len(before) / len(asked)
    interval = binomtest(sum(on_request), len(on_request)).proportion_ci(method="wilson")
    accuracy, low, high = (
        sum(before) / len(asked) + fraction * rate
        for rate in (sum(on_request) / len(on_request), float(interval.low), float(interval.high))
    )
    return LabelledAccuracy(num_labels, accuracy, low, high)
