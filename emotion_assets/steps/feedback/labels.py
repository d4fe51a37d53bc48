"""Labels that people gave to predictions, and the training images that they turn into.

A label counts for the prediction that it names. Where the service stored the image, the image is copied to
`raw/<Class>/feedback/`, and the next ingest reads it like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from emotion_assets.core.classes import raw_folder, read_classes
from emotion_assets.core.files import list_files, write_atomically
from emotion_assets.core.layout import COLLECTED_NAME, DAY_PATTERN, FEEDBACK_IMAGES, DataPaths
from emotion_assets.core.summary import Summary


class Label(NamedTuple):
    """What a person said about a prediction, and when: ISO 8601, UTC."""

    prediction_id: str
    emotion: str
    time: str


@dataclass(slots=True)
class CollectedLabels:
    """What became of the labels given so far."""

    num_labels: int = 0
    num_new_files: int = 0
    num_files: int = 0
    num_without_image: int = 0
    """Labels whose image was not stored, or has expired."""
    num_of_other_class: int = 0
    """Labels that are none of the present classes."""
    num_removed_by_user: int = 0
    """Labels whose image somebody moved or deleted; it is not copied again."""

    def summary(self) -> Summary:
        """Return the counts."""
        return Summary(values=asdict(self))


def read_labels(feedback_dir: Path) -> Iterator[Label]:
    """Yield the label of every valid label file, of whatever class; skip anything else."""
    for path in sorted(feedback_dir.glob("??/*.json")):
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if (
            isinstance(record, dict)
            and isinstance(record.get("emotion"), str)
            and record.get("prediction_id") == path.stem
        ):
            yield Label(path.stem, str(record["emotion"]), str(record.get("time", "")))


def stored_images(image_log_dir: Path) -> dict[str, Path]:
    """Return the images that the service stored, by prediction id."""
    return {path.stem: path for path in list_files(image_log_dir, f"{DAY_PATTERN}/*.*")}


def collect_labels(paths: DataPaths) -> CollectedLabels:
    """Copy the stored image of every labelled prediction to `raw/<Class>/feedback/`, each once.

    `feedback/collected.txt` lists the ids of what was copied, so that an image that somebody removed stays removed.
    """
    stored = stored_images(paths.image_log)
    classes = read_classes(paths.classes)
    folders = {emotion: paths.raw / raw_folder(emotion) / FEEDBACK_IMAGES for emotion in classes.names}
    existing = {emotion: {path.stem for path in folder.glob("*.*")} for emotion, folder in folders.items()}
    collected_path = paths.feedback / COLLECTED_NAME
    before = set(collected_path.read_text().split()) if collected_path.exists() else set()
    collected, result = set(before), CollectedLabels()
    for label in read_labels(paths.feedback):
        result.num_labels += 1
        emotion = classes.resolve(label.emotion)
        if emotion is None:
            result.num_of_other_class += 1
            continue
        if label.prediction_id in existing[emotion]:
            result.num_files += 1
        elif label.prediction_id in before:
            result.num_removed_by_user += 1
            continue
        elif _copy(stored.get(label.prediction_id), folders[emotion]):
            result.num_files += 1
            result.num_new_files += 1
        else:
            result.num_without_image += 1
            continue
        collected.add(label.prediction_id)
    if collected != before:
        write_atomically(collected_path, "".join(f"{name}\n" for name in sorted(collected)))
    return result


def _copy(source: Path | None, folder: Path) -> bool:
    """Copy an image; return False if there is none, or if it has just expired."""
    try:
        if source is None:
            return False
        write_atomically(folder / source.name, source.read_bytes())
    except FileNotFoundError:
        return False
    return True
