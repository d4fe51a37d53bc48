"""The whole graph on a data root in object storage, from several hosts."""

from __future__ import annotations

import contextlib
import threading

import dagster as dg
import pytest

from emotion_assets.assets.evaluation import candidate_is_not_worse, evaluation_report
from emotion_assets.assets.ingest import greyscale_splits, raw_images, splits_share_no_image, splits_share_no_subject
from emotion_assets.assets.packing import emotion_bento
from emotion_assets.assets.training import trained_cnn
from emotion_assets.automation.sensors import new_images_sensor
from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.classes import read_classes
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import RemoteRoot, open_store
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.ingest.scan import folder_state
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.registry.registry import Registry
from tests.cluster.helpers import materialize

SCORES = ("test/accuracy", "test/macro_f1")


def scores(result: dg.ExecuteInProcessResult) -> list[object]:
    (event,) = result.asset_materializations_for_node("evaluation_report")
    return [event.metadata[name].value for name in SCORES]


def test_object_storage_gives_the_same_model_as_a_folder(
    local: PipelineSettings, hosts: list[PipelineSettings]
) -> None:
    """Each asset on another host than the one before: the same splits, weights and scores as on a laptop."""
    on_laptop = materialize(local)
    materialize(hosts[0], raw_images)
    materialize(hosts[1], greyscale_splits, splits_share_no_image, splits_share_no_subject)
    materialize(hosts[0], trained_cnn)
    evaluated = materialize(hosts[1], evaluation_report, candidate_is_not_worse)
    materialize(hosts[0], emotion_bento)

    bundles = [settings.paths.models / Registry(settings.paths.models).candidate() for settings in (local, *hosts)]
    manifests = [read_manifest(path) for path in bundles]
    assert len({manifest.data_fingerprint for manifest in manifests}) == 1
    assert len({manifest.files["weights.safetensors"] for manifest in manifests}) == 1
    assert scores(evaluated) == scores(on_laptop)
    assert Registry(hosts[0].paths.models).champion() == Registry(hosts[1].paths.models).champion()


def test_two_ingests_of_one_delivery_lose_and_double_nothing(
    hosts: list[PipelineSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second to commit is refused and starts again; on both hosts every file is there once."""
    barrier, commit = threading.Barrier(2), RemoteRoot.commit

    def in_step(root: RemoteRoot, folder: str) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):  # by the second attempt of the refused one
            barrier.wait(60)
        commit(root, folder)
        barrier.abort()

    monkeypatch.setattr(RemoteRoot, "commit", in_step)
    results: list[dg.ExecuteInProcessResult] = []
    threads = [
        threading.Thread(target=lambda host=host: results.append(materialize(host, raw_images)))  # type: ignore[misc]
        for host in hosts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [result.success for result in results] == [True, True]
    retries = [event for result in results for event in result.all_events if event.is_step_up_for_retry]
    assert len(retries) == 1
    for host in hosts:
        with host.opened("catalogue") as paths:
            assert num_files(paths) == (200, 200)


def num_files(paths: DataPaths) -> tuple[int, int]:
    """Count the files of a catalogue, and their contents."""
    with Store(paths.catalogue / STORE_NAME) as store:
        rows = list(store.file_rows())
    return len(rows), len({row[3] for row in rows})


def test_the_sensor_sees_new_objects(hosts: list[PipelineSettings]) -> None:
    """With the classes that are beside the images, of which it needs no copy."""
    store = open_store(hosts[0].remote_root)
    store.put("classes.yaml", b"[angry, fear, happy, sad, surprise, calm]")
    store.put("raw/Calm/1.jpg", b"not looked at yet")
    quiet = hosts[0].model_copy(update={"quiet_seconds": 0})
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"settings": quiet})
        result = new_images_sensor(context)

    assert isinstance(result, dg.SensorResult)
    assert result.run_requests
    assert not quiet.paths.raw.exists()
    state = folder_state(quiet.paths.raw_source, read_classes(quiet.paths.classes))
    assert state.num_files == 201
