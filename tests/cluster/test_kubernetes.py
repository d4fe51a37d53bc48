"""What runs on Kubernetes, as far as it can be checked without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.cluster
CONTAINER_DIR = Path(__file__).parents[2] / "container"


def test_a_run_is_a_pod_that_joins_the_ray_cluster() -> None:
    """Built by Dagster's own launcher from the values of its chart; unknown fields would be refused."""
    from dagster_k8s.job import DagsterK8sJobConfig, UserDefinedDagsterK8sConfig, construct_dagster_k8s_job

    values = yaml.safe_load((CONTAINER_DIR / "dagster_values.yaml").read_text())
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    run_config = {_snake(name): value for name, value in launcher["runK8sConfig"].items()}
    user_config = UserDefinedDagsterK8sConfig.from_dict(run_config)
    job = construct_dagster_k8s_job(
        job_config=DagsterK8sJobConfig(dagster_home="/opt/dagster/dagster_home", job_image="IMAGE:TAG"),
        args=["dagster", "api", "execute_run", "{}"],
        job_name="run",
        user_defined_k8s_config=user_config,
    )

    pod: dict[str, Any] = job.to_dict()["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["command"][:2] == ["sh", "-c"]
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    mounted = {mount["name"] for mount in container["volume_mounts"]}
    assert "data" in mounted <= {volume["name"] for volume in pod["volumes"]}
    deployment = values["dagster-user-deployments"]["deployments"][0]
    assert {entry["name"] for entry in deployment["env"]} >= {"EMOTION_DATA_DIR", "RAY_ADDRESS"}


def test_ray_nodes_read_the_same_data_root() -> None:
    """The run and the nodes agree on image, address and local copy."""
    values = yaml.safe_load((CONTAINER_DIR / "dagster_values.yaml").read_text())
    cluster = yaml.safe_load((CONTAINER_DIR / "ray_cluster.yaml").read_text())
    env = {entry["name"]: entry["value"] for entry in values["dagster-user-deployments"]["deployments"][0]["env"]}

    assert env["RAY_ADDRESS"] == f"{cluster['metadata']['name']}-head-svc:6379"
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        container = group["template"]["spec"]["containers"][0]
        own = {entry["name"]: entry["value"] for entry in container["env"]}
        assert container["image"] == values["dagsterWebserver"]["image"]["repository"]
        assert own["EMOTION_DATA_DIR"] == env["EMOTION_DATA_DIR"]
        assert own["EMOTION_CACHE_DIR"] == env["EMOTION_CACHE_DIR"]


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)
