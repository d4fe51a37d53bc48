"""Faces are found in images, and an image without one is not guessed at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from emotion_assets.core.images import decode_gray, decode_image, face_pixels
from emotion_assets.demo.faces import draw_face
from emotion_service.app import EmotionApp
from emotion_service.face_detection import (
    WHOLE,
    WORKING_SIDE_PX,
    Face,
    FaceDetector,
    NoFaceError,
    Region,
    cut,
    face_region,
)
from emotion_service.settings import Settings
from tests.service.conftest import logged

FACE_BOX = (150, 90, 330, 270)


@pytest.fixture(scope="module")
def finder() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """A drawn face that looks much like a real one, on a larger gray scene."""
    face = Image.open(io.BytesIO(draw_face("sad", np.random.default_rng(30)))).convert("L")
    scene = Image.new("L", (400, 300), 128)
    scene.paste(face.resize((180, 180)), FACE_BOX[:2])
    return scene


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    settings = Settings(tmp_path, num_workers=1, max_concurrency=4, timeout_seconds=20, keep_images=True)
    emotion_app = EmotionApp(settings)
    emotion_app.load(bundle_dir)
    return emotion_app


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_the_face_is_found_where_it_is(finder: FaceDetector, image: Image.Image) -> None:
    """One face, inside of the square that was drawn, most of which it fills."""
    (face,) = finder.find(image)

    assert FACE_BOX[0] < face.left * 400 < face.right * 400 < FACE_BOX[2]
    assert FACE_BOX[1] < face.top * 300 < face.bottom * 300 < FACE_BOX[3]
    assert (face.right - face.left) * 400 > 90


def test_the_region_is_a_square_around_the_face(finder: FaceDetector, image: Image.Image) -> None:
    """In pixels both sides are equal, and its middle is the face's."""
    (face,) = finder.find(image)
    region = face_region(image, face)

    assert (region.right - region.left) * 400 == pytest.approx((region.bottom - region.top) * 300)
    assert region.left + region.right == pytest.approx(face.left + face.right)


@pytest.mark.parametrize("shade", ["flat", "noise", "stripes"])
def test_no_face_is_said(finder: FaceDetector, shade: str) -> None:
    """An image of nothing gets no answer."""
    pixels = {
        "flat": np.full((300, 300), 90, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8),
        "stripes": np.tile(np.arange(300, dtype=np.uint8) % 40 * 6, (300, 1)),
    }[shade]

    with pytest.raises(NoFaceError, match="No face was found"):
        finder.region(Image.fromarray(pixels))


@pytest.mark.parametrize("size", [(8, 8), (8, 3000), (3000, 8), (129, 129), (1, 500)])
def test_odd_shapes_do_not_trouble_the_finder(finder: FaceDetector, size: tuple[int, int]) -> None:
    """Slim and tiny images hold no face, and raise nothing else."""
    assert finder.find(Image.new("L", size, 200)) == []


def test_a_small_image_or_a_full_one_is_a_face_already(finder: FaceDetector) -> None:
    """Up to 128 pixels nothing is looked for; a face that fills the frame is not cut again."""
    assert finder.region(Image.new("L", (128, 128))) == WHOLE
    assert face_region(Image.new("L", (300, 300)), Face(0.1, 0.05, 0.9, 0.95, 1.0)) == WHOLE


def test_a_region_over_the_edge_repeats_the_edge() -> None:
    """Outside of the image there is no black border, which no training face had."""
    image = Image.fromarray(np.tile(np.array([[10, 250]], np.uint8).repeat(50, axis=1), (100, 1)))
    outside = np.asarray(cut(image, Region(-0.5, 0, 0.5, 1)))

    assert outside.shape == (100, 100)
    assert set(outside.flatten().tolist()) == {10}


def test_predict_finds_the_face_on_request(client: TestClient, image: Image.Image) -> None:
    """The answer tells the region; without the request the whole image counts."""
    found = client.post("/predict?face=find", files={"image": png(image)}).json()
    whole = client.post("/predict", files={"image": png(image)}).json()

    assert set(found["face"]) == {"left", "top", "right", "bottom"}
    assert "face" not in whole
    assert found["features"] != whole["features"]


def test_predict_says_when_there_is_no_face(client: TestClient, app: EmotionApp) -> None:
    """422 with its own code, for one image and inside a batch, and nothing in the log."""
    nothing = png(Image.new("L", (300, 300), 90))
    response = client.post("/predict?face=find", files={"image": nothing})
    batch = client.post("/predict_batch?face=find", files=[("images", nothing)])

    assert response.status_code == 422
    assert response.json()["error"]["code"] == batch.json()[0]["error"]["code"] == "no_face"
    assert logged(app) == []


def test_what_is_kept_of_a_image_is_the_face(app: EmotionApp, image: Image.Image) -> None:
    """People label, and the network later learns, exactly what it was shown."""
    with TestClient(app.routes()) as client:
        body = client.post("/predict?face=find", files={"image": png(image)}).json()
    logged(app)
    (kept,) = (app.settings.data_dir / "predictions" / "images").rglob("*.png")
    region = Region(**body["face"])
    shown = face_pixels(cut(decode_gray(png(image), WORKING_SIDE_PX).image, region))

    assert np.array_equal(decode_image(kept.read_bytes()).pixels, shown)
