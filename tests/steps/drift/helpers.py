"""Windows, references and log files for the tests of drift and feedback."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.bundle import CORRUPTIONS_NAME, REFERENCE_NAME, read_manifest, write_manifest
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import feature_columns, probability_columns
from emotion_assets.core.files import file_sha256
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import Pixels
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.drift.verdict import DriftReference, DriftVerdict, assess
from emotion_assets.steps.reference.corruptions import (
    CORRUPTION_COLUMN,
    INDEX_COLUMN,
    PART_COLUMN,
    STRENGTH_COLUMN,
    UNCHANGED,
)
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN
from emotion_assets.steps.registry.registry import Decision, Registry


def random_window(count: int, seed: int, shift: float = 0.0, happy: float = 0.2) -> pd.DataFrame:
    """Draw independent features and correct predictions, with `brightness` moved by `shift`."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.normal(0.5, 0.1, count) for name in feature_columns(EMOTIONS)[:-1]})
    table["brightness"] += shift
    table["emotion"] = rng.choice(EMOTIONS, count, p=_priors(happy))
    return table.assign(**{TRUE_EMOTION_COLUMN: table["emotion"]})


def calibrated_window(count: int, seed: int, happy: float = 0.2) -> pd.DataFrame:
    """Draw the predictions of a calibrated model under class priors, with the true emotions."""
    rng = np.random.default_rng(seed)
    table = random_window(count, seed)
    truth = rng.choice(5, count, p=_priors(happy))
    logits = rng.normal(0, 1, (count, 5))
    logits[np.arange(count), truth] += 2
    # The posterior of a model that was trained with equal class priors.
    probabilities = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    table[probability_columns(EMOTIONS)] = probabilities
    table["emotion"] = [EMOTIONS[index] for index in probabilities.argmax(axis=1)]
    table[TRUE_EMOTION_COLUMN] = [EMOTIONS[index] for index in truth]
    return table


def slightly_drifted_window(count: int, seed: int) -> pd.DataFrame:
    """Draw a window that raises an alarm but is not significant alone."""
    table = calibrated_window(count, seed)
    table["p_sad"] += 0.003
    table["brightness"] -= 0.05
    return table


def _priors(happy: float) -> list[float]:
    return [happy if emotion == "happy" else (1 - happy) / 4 for emotion in EMOTIONS]


def assess_tables(current: pd.DataFrame, reference: pd.DataFrame, profile: pd.DataFrame | None = None) -> DriftVerdict:
    return assess(current, DriftReference.from_tables(reference, profile))


def predict_by_bands(pixels: Pixels, temperature: float = 20) -> npt.NDArray[np.float32]:
    """Stand for a network that compares the brightness of five horizontal bands."""
    bands = pixels[:, 2:62].reshape(len(pixels), 5, 12, 64).mean(axis=(2, 3)).astype(np.float32)
    scores = np.exp((bands - bands.mean(axis=1, keepdims=True)) / np.float32(temperature))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), dtype=np.float32)


def normal_window(count: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Draw confident predictions; `shift` moves every second statistic, in standard deviations."""
    rng = np.random.default_rng(seed)
    statistics = rng.normal(0, 1, (count, len(STATISTICS)))
    statistics[:, ::2] += shift
    predicted = rng.integers(0, len(EMOTIONS), count)
    probabilities = rng.uniform(0.05, 0.1, (count, len(EMOTIONS)))
    probabilities[np.arange(count), predicted] = 0.7
    table = pd.DataFrame(np.hstack([statistics, probabilities]), columns=feature_columns(EMOTIONS)[:-1])
    table["emotion"] = [EMOTIONS[index] for index in predicted]
    return table.assign(**{TRUE_EMOTION_COLUMN: table["emotion"]})


def mixed_window(count: int, fraction: float, seed: int) -> pd.DataFrame:
    """Draw a window with a fraction of images corrupted as in `inverted_profile`."""
    num_corrupted = round(fraction * count)
    tables = [normal_window(count - num_corrupted, seed), normal_window(num_corrupted, seed + 1000, shift=1.0)]
    return pd.concat(tables, ignore_index=True)


def inverted_profile(num_images: int, num_reference: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw a reference, and the profile of one corruption that replaces four predictions in five by others."""
    reference = normal_window(num_reference, seed=0)
    tables = [
        table.assign(
            **{
                CORRUPTION_COLUMN: name,
                STRENGTH_COLUMN: strength,
                PART_COLUMN: "",
                INDEX_COLUMN: np.arange(num_images),
                TRUE_EMOTION_COLUMN: reference[TRUE_EMOTION_COLUMN].head(num_images).to_numpy(),
            }
        )
        for name, strength, table in (
            (UNCHANGED, 0.0, reference.head(num_images)),
            ("inverted", 1.0, normal_window(num_images, seed=1, shift=1.0)),
        )
    ]
    return reference, pd.concat(tables, ignore_index=True)


def write_segment(
    folder: Path,
    rows: pd.DataFrame,
    version: str = "v1",
    hour: int = 0,
    *,
    second: int = 0,
    host: str = "a",
    year: int = 2025,
) -> Path:
    """Write a segment of the prediction log for an hour of 1 January, one row a second."""
    path = folder / f"{year}-01-01" / f"{year}0101T{hour:02}0000000000-{host}-1.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {
                "time": f"{year}-01-01T{hour:02}:{i // 60 % 60:02}:{i % 60:02}.000+00:00",
                "prediction_id": f"{version}-{path.stem}-{i}",
                "model_version": version,
                "emotion": row["emotion"],
                "probabilities": {emotion: row[f"p_{emotion}"] for emotion in EMOTIONS},
                "features": {name: row[name] for name in STATISTICS},
                "image_sha256": "0",
            }
        )
        for i, row in enumerate(rows.to_dict("records"), second)
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_label(feedback_dir: Path, prediction_id: str, emotion: str, time: str = "2025-01-02T00:00:00") -> None:
    """Label a prediction as the service does."""
    path = feedback_dir / prediction_id[:2] / f"{prediction_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"prediction_id": prediction_id, "emotion": emotion, "time": time}))


def make_root(root: Path, bundle_dir: Path, reference: pd.DataFrame | None = None) -> DataPaths:
    """Make a data root whose champion is a copy of a bundle with another reference and no corruption profile."""
    paths = DataPaths(root)
    bundle = Path(shutil.copytree(bundle_dir, paths.models / bundle_dir.name))
    (calibrated_window(1000, seed=0) if reference is None else reference).to_parquet(bundle / REFERENCE_NAME)
    (bundle / CORRUPTIONS_NAME).unlink(missing_ok=True)
    manifest = read_manifest(bundle)
    hashes = {name: file_sha256(bundle / name) for name in manifest.files if name != CORRUPTIONS_NAME}
    write_manifest(bundle, replace(manifest, files=hashes))
    Registry(paths.models).record(Decision(candidate=bundle.name, is_accepted=True, reasons=[]))
    return paths
