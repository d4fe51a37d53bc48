from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training.run import bundle_summary, train_bundle
from tests.steps.training.helpers import link_splits, tiny


def test_bundle_records_how_it_was_made(bundle_dir: Path) -> None:
    """The manifest has what is needed to repeat the run, and nothing in the bundle is a pickle."""
    manifest = read_manifest(bundle_dir)

    assert manifest.configuration["seed"] == 0
    assert manifest.configuration["width"] == 8
    assert len(manifest.data_fingerprint) == 64
    assert manifest.training["history"][0]["epoch"] == 1
    assert manifest.environment["pytorch-lightning"]
    assert set(manifest.files) == {"model.onnx", "weights.safetensors", "reference.parquet", "train_images.npy"}
    assert {path.name for path in bundle_dir.iterdir()} == {*manifest.files, "manifest.json"}


def test_summary_shows_scores_and_configuration(bundle_dir: Path) -> None:
    """Everything that a person asks about a trained model."""
    summary, manifest = bundle_summary(bundle_dir), read_manifest(bundle_dir)

    assert summary.values["val/accuracy"] == manifest.metrics["val/accuracy"]
    assert summary.values["version"] == bundle_dir.name
    assert summary.values["epochs"] == 1
    assert summary.values["runtime_precision"] == "float32"
    assert '"width": 8' in summary.texts["configuration"]
    assert b"<svg" in summary.images["learning_curves"]


def test_equal_inputs_are_not_trained_twice(
    drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]]
) -> None:
    """The newest bundle is returned, unless it is damaged; logs of the run stay, and its other files are removed."""
    paths = link_splits(drawn_root, tmp_path)
    config = tiny(epochs=1, quantize_int8=False)
    first = train_bundle(paths, config, code_version="x")
    (run_dir,) = paths.training_runs.glob("*/")
    assert list(run_dir.rglob("metrics.csv"))
    assert not list(run_dir.rglob("*.ckpt"))
    (run_dir / "last.ckpt").write_bytes(b"of a run that was killed before it removed its files")

    assert train_bundle(paths, config, code_version="x") == first
    assert not (run_dir / "last.ckpt").exists()
    assert log_lines()[-1].startswith("Nothing has changed since")
    other = train_bundle(paths, config.model_copy(update={"seed": 1}), code_version="x")
    back = train_bundle(paths, config, code_version="x")
    (back / "model.onnx").write_bytes(b"torn")
    assert len({first, other, back, train_bundle(paths, config, code_version="x")}) == 4


def test_a_new_title_of_a_class_reaches_the_model(drawn_root: Path, tmp_path: Path) -> None:
    """The page shows the titles of the bundle."""
    paths = DataPaths(tmp_path)
    shutil.copytree(drawn_root / "splits", paths.splits)
    config = tiny(epochs=1, quantize_int8=False)
    first = train_bundle(paths, config, code_version="x")
    manifest_path = paths.splits / "manifest.json"
    record = json.loads(manifest_path.read_text())
    manifest_path.write_text(json.dumps(record | {"titles": ["cross", *record["titles"][1:]]}))

    second = train_bundle(paths, config, code_version="x")

    assert second != first
    assert read_manifest(second).titles["angry"] == "cross"
