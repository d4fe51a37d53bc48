"""Other classes than the five, without a line of code: from folders to the page, and back through feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from starlette.testclient import TestClient

from emotion_assets.assets.drift import drift_report
from emotion_assets.assets.evaluation import evaluation_report
from emotion_assets.assets.feedback import collected_feedback
from emotion_assets.assets.ingest import greyscale_splits, raw_images, splits_share_no_image, splits_share_no_subject
from emotion_assets.assets.training import trained_cnn
from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.classes import raw_folder
from emotion_assets.core.layout import FEEDBACK_IMAGES, DataPaths
from emotion_assets.demo.faces import draw_face
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.registry.registry import Registry
from tests.browser import launch, needs_chromium
from tests.service.conftest import RunningServer, make_app

ASSETS = [
    collected_feedback,
    raw_images,
    greyscale_splits,
    splits_share_no_image,
    splits_share_no_subject,
    trained_cnn,
    evaluation_report,
]
TINY = {"preset": "quick", "epochs": 1, "width": 8, "batch_size": 32}
NUM_PREDICTIONS = 60


@dataclass(frozen=True)
class Delivery:
    """Classes as a user lists them, and where the faces lie."""

    text: str
    names: Sequence[str]
    titles: Sequence[str]
    folder: str
    num_per_class: int


SEVEN = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
FORTY = ("Überrascht", *(f"class {number:02}" for number in range(1, 40)))
DELIVERIES = {
    "seven, as FER2013's folders": Delivery(
        "".join(f"- {name}\n" for name in SEVEN),
        SEVEN,
        ("angry", "disgusted", "afraid", "happy", "neutral", "sad", "surprised"),
        "archive/{part}/{name}",
        20,
    ),
    "two, with spaces": Delivery(
        "- {name: not smiling, title: </script>ernst}\n- {name: is smiling, title: fröhlich}\n",
        ("not smiling", "is smiling"),
        ("</script>ernst", "fröhlich"),
        "images/{part}/{name}",
        40,
    ),
    "forty": Delivery("".join(f"- {name}\n" for name in FORTY), FORTY, FORTY, "{name}", 12),
}


def materialize(
    paths: DataPaths, *assets: dg.AssetsDefinition, force_reason: str | None = "a tiny network"
) -> dg.ExecuteInProcessResult:
    """Materialize some assets, by default all but the drift report, with a network of seconds."""
    chosen = assets or ASSETS
    config = {"trained_cnn": TINY, "evaluation_report": {"force_reason": force_reason} if force_reason else {}}
    names = {asset.node_def.name for asset in chosen}
    # An instance of its own: other tests leave the variable DAGSTER_HOME behind in Dagster's caches.
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            chosen,
            instance=instance,
            resources={"settings": PipelineSettings(data_dir=paths.root)},
            run_config={"ops": {name: {"config": values} for name, values in config.items() if name in names}},
        )


def deliver(paths: DataPaths, delivery: Delivery) -> list[tuple[str, bytes]]:
    """Write the faces of a delivery, and return one new face of each class."""
    rng = np.random.default_rng(3)
    for name in delivery.names:
        for number in range(delivery.num_per_class):
            folder = delivery.folder.format(part="test" if number % 5 == 0 else "train", name=name)
            path = paths.raw / folder / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_face(name, rng))
    return [(name, draw_face(name, rng)) for name in delivery.names]


@pytest.mark.parametrize("kind", DELIVERIES)
def test_any_classes_go_round_the_loop(tmp_path: Path, kind: str) -> None:
    """Splits, network, reports, service, pages, OpenAPI, drift and labels all have the classes of the file."""
    delivery, paths = DELIVERIES[kind], DataPaths(tmp_path)
    paths.classes.write_text(delivery.text)
    faces = deliver(paths, delivery)
    names = list(delivery.names)

    assert materialize(paths).success
    bundle_dir = Registry(paths.models).require_champion()
    manifest = read_manifest(bundle_dir)
    report = (paths.evaluation_report(bundle_dir.name) / "report.html").read_text()
    card = (bundle_dir / "MODEL_CARD.md").read_text() if (bundle_dir / "MODEL_CARD.md").exists() else report
    assert (manifest.emotions, list(manifest.titles.values())) == (names, list(delivery.titles))
    assert all(name in report and name in card for name in names)

    app = make_app(tmp_path, bundle_dir, store_images=True, max_concurrency=8)
    with TestClient(app.routes()) as client:
        assert client.get("/model").json()["emotions"] == names
        document = client.get("/docs.json").json()
        assert document["components"]["schemas"]["Prediction"]["properties"]["emotion"]["enum"] == names
        for page in ("/", "/label"):
            text = client.get(page).text
            assert text.count("</script>") == 1
        predictions = [
            client.post("/predict", files={"image": faces[number % len(faces)][1] + bytes([number])}).json()
            for number in range(NUM_PREDICTIONS)
        ]
        assert list(predictions[0]["probabilities"]) == names
        assert sum(predictions[0]["probabilities"].values()) == pytest.approx(1)
        label = {"prediction_id": predictions[0]["prediction_id"], "emotion": names[-1].upper()}
        assert client.post("/feedback", json=label).json()["emotion"] == names[-1]
        unknown = client.post("/feedback", json={"prediction_id": predictions[1]["prediction_id"], "emotion": "bored"})
        assert unknown.json()["error"]["message"] == f"The emotion must be one of {', '.join(names)}."
    app.close()

    assert materialize(paths, drift_report).success
    assert materialize(paths, collected_feedback, raw_images).success
    (copied,) = (paths.raw / raw_folder(names[-1]) / FEEDBACK_IMAGES).iterdir()
    assert copied.stem == predictions[0]["prediction_id"]


@needs_chromium
def test_the_page_shows_the_classes_of_the_model(tmp_path: Path) -> None:
    """The titles are the user's, whatever characters they have; a label goes back under the class's name."""
    from playwright.sync_api import expect, sync_playwright

    delivery, paths = DELIVERIES["two, with spaces"], DataPaths(tmp_path / "data")
    paths.root.mkdir()
    paths.classes.write_text(delivery.text)
    faces = deliver(paths, delivery)
    assert materialize(paths).success
    app = make_app(paths.root, Registry(paths.models).require_champion())
    (tmp_path / "face.jpg").write_bytes(faces[0][1])

    with RunningServer(app) as server, sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page()
        page.goto(server.address)
        expect(page.locator("#bars")).to_contain_text("</script>ernst")
        page.locator("#file").set_input_files(tmp_path / "face.jpg")
        anyway = page.get_by_role("button", name="It is a face")
        expect(page.locator("#prediction").get_by_text("This face looks").or_(anyway)).to_be_visible()
        if anyway.is_visible():
            anyway.click()
        expect(page.locator("#prediction")).to_contain_text("This face looks")
        page.get_by_role("button", name="fröhlich").click()
        expect(page.locator("#thanks")).to_contain_text("Your label is saved: fröhlich.")
        browser.close()
    app.close()
    (label,) = paths.feedback.glob("??/*.json")
    assert '"emotion": "is smiling"' in label.read_text()


def test_a_model_of_other_classes_is_refused_with_both_lists(tmp_path: Path) -> None:
    """A changed list of classes changes what clients get, so a person has to want it."""
    paths = DataPaths(tmp_path)
    paths.classes.write_text("- happy\n- sad\n")
    rng = np.random.default_rng(0)
    for name in ("happy", "sad", "angry"):
        for number in range(15):
            path = paths.raw / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_face(name, rng))
    assert materialize(paths).success
    before = Registry(paths.models).champion()

    paths.classes.write_text("- angry\n- happy\n- sad\n")
    materialize(paths, raw_images, greyscale_splits)
    with pytest.raises(Exception, match=r"is for the classes happy, sad; the splits have angry, happy, sad\."):
        materialize(paths, evaluation_report)
    result = materialize(paths, trained_cnn, evaluation_report, force_reason=None)
    reasons = result.asset_materializations_for_node("evaluation_report")[0].metadata["reasons"].value

    assert Registry(paths.models).champion() == before
    assert "is for the classes happy, sad; the candidate is for angry, happy, sad" in str(reasons)
    assert "force_reason" in str(reasons)
    assert materialize(paths, evaluation_report, force_reason="Three classes from now on").success
    assert Registry(paths.models).champion() != before
