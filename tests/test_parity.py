"""No training-serving skew: the same bytes give the same pixels and probabilities everywhere."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from starlette.testclient import TestClient

from emotion_assets.core.bundle import WEIGHTS_NAME, read_manifest
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import decode_image
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import STORE_NAME, ingest_images
from emotion_assets.steps.ingest.store import Store
from emotion_assets.steps.reference.reference import feature_table
from emotion_assets.steps.training.model import EmotionNet, InferenceModel
from emotion_service.app import EmotionApp
from emotion_service.settings import Settings


@pytest.fixture(scope="module")
def images(faces: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """Images of many kinds by content hash: as drawn, in color, rotated by EXIF, large, in other formats."""
    contents = [content for _, content in faces]
    image = Image.open(io.BytesIO(faces[0][1]))
    exif = Image.Exif()
    exif[0x0112] = 6
    variants: list[tuple[Image.Image, str, dict[str, object]]] = [
        (image.convert("RGB").resize((700, 500)), "JPEG", {"quality": 60}),
        (image.convert("RGB"), "JPEG", {"exif": exif}),
        (image.convert("RGBA"), "PNG", {}),
        (image.convert("P"), "GIF", {}),
        (image, "BMP", {}),
        (image, "TIFF", {}),
        (image.convert("RGB"), "WEBP", {}),
        (image.resize((1500, 1500)), "PNG", {}),
    ]
    for variant, name, options in variants:
        buffer = io.BytesIO()
        variant.save(buffer, name, **options)
        contents.append(buffer.getvalue())
    return {hashlib.sha256(content).hexdigest(): content for content in contents}


@pytest.fixture(scope="module")
def service(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """The service's own routes, in this process."""
    app = EmotionApp(Settings(data_dir=tmp_path_factory.mktemp("data"), workers=1, timeout_seconds=30))
    app.load(bundle_dir)
    return TestClient(app.routes())


def test_ingest_training_and_service_agree(
    images: dict[str, bytes], bundle_dir: Path, service: TestClient, tmp_path: Path
) -> None:
    """Ingested pixels equal decoded ones; torch, the reference table and HTTP give the same numbers."""
    paths = DataPaths(tmp_path)
    folder = paths.raw / "happy"
    folder.mkdir(parents=True)
    for number, content in enumerate(images.values()):
        (folder / f"{number}.bin").write_bytes(content)
    ingest_images(paths)
    with Store(paths.catalogue / STORE_NAME) as store:
        ingested = store.read_pixels(images)
    manifest = read_manifest(bundle_dir)
    network = EmotionNet(manifest.configuration["width"])
    network.load_state_dict(load_file(bundle_dir / WEIGHTS_NAME))
    with torch.inference_mode():
        model = InferenceModel(network.eval(), manifest.temperature).eval()
        expected = model(torch.from_numpy(ingested)).probabilities.numpy()
    reference = feature_table(ingested, expected, EMOTIONS)

    for index, content in enumerate(images.values()):
        assert (decode_image(content).pixels == ingested[index]).all()
        raw = service.post("/predict", content=content, headers={"Content-Type": "image/x-anything"})
        form = service.post("/predict", files={"image": ("../../x.exe", content, "text/plain")})
        assert raw.status_code == form.status_code == 200, raw.text
        for prediction in (raw.json(), form.json()):
            assert [prediction["probabilities"][emotion] for emotion in EMOTIONS] == pytest.approx(
                expected[index].tolist(), abs=1e-5
            )
            assert prediction["emotion"] == reference["emotion"][index]
            for name, value in prediction["features"].items():
                assert value == pytest.approx(reference[name][index], abs=1e-5)
