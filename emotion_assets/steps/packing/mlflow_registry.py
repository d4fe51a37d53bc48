"""Register the champion in MLflow's model registry, for teams that look for models there."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Final

from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.errors import UnusableDataError

CHAMPION_ALIAS: Final = "champion"
VERSION_TAG: Final = "bundle"

_logger = logging.getLogger(__name__)


def register_champion(bundle_dir: Path, name: str) -> str:
    """Register a bundle under `name`, give it the alias `champion`, and return MLflow's number of the version.

    A bundle that is already registered, for example after a rollback, only gets the alias. MLFLOW_TRACKING_URI names
    the server. An experiment of the same name has a run for each version.

    Raises:
        UnusableDataError: MLflow is not installed.
        BundleMismatchError: the bundle's manifest is damaged.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise UnusableDataError(
            "EMOTION_MLFLOW_MODEL is set, but MLflow is not installed. Run: pip install '.[mlflow]' -c constraints.txt"
        )
    from mlflow import MlflowClient

    manifest = read_manifest(bundle_dir)
    client = MlflowClient()
    if not client.search_registered_models(f'name = "{name}"'):
        client.create_registered_model(name)
    versions = client.search_model_versions(f'name = "{name}"')
    number = next((each.version for each in versions if each.tags.get(VERSION_TAG) == manifest.version), None)
    if number is None:
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        run = client.create_run(experiment_id, run_name=manifest.version)
        for score, value in manifest.metrics.items():
            client.log_metric(run.info.run_id, score, value)
        client.log_artifacts(run.info.run_id, str(bundle_dir), "bundle")
        client.set_terminated(run.info.run_id)
        tags = {VERSION_TAG: manifest.version, "data_fingerprint": manifest.data_fingerprint}
        source = f"{run.info.artifact_uri}/bundle"
        number = client.create_model_version(name, source, run.info.run_id, tags=tags).version
    client.set_registered_model_alias(name, CHAMPION_ALIAS, number)
    _logger.info("MLflow has %s as version %s of %s", manifest.version, number, name)
    return str(number)
