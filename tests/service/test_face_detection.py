"""Faces are detected in images, and an image without one is rejected."""

from __future__ import annotations

import io

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
    FaceDetector,
    NoFaceError,
    _window,
    crop_region,
    face_region,
)
from emotion_service.schemas import FaceRegion
from tests.service.conftest import logged

FACE_BOX = (150, 90, 330, 270)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def image(detector: FaceDetector) -> Image.Image:
    """A drawn face on a larger gray background; few drawings resemble a real face enough to be detected."""
    for seed in range(200):
        face = Image.open(io.BytesIO(draw_face("sad", np.random.default_rng(seed)))).convert("L")
        scene = Image.new("L", (400, 300), 128)
        scene.paste(face.resize((180, 180)), FACE_BOX[:2])
        if len(detector.detect(scene)) == 1:
            return scene
    raise AssertionError("no drawn face is detected")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_the_face_is_detected_at_its_position(detector: FaceDetector, image: Image.Image) -> None:
    """One face, in the drawn square, most of which it fills."""
    (face,) = detector.detect(image)

    assert FACE_BOX[0] < face.left * 400 < face.right * 400 < FACE_BOX[2]
    assert FACE_BOX[1] - 10 < face.top * 300 < face.bottom * 300 < FACE_BOX[3] + 10
    assert (face.right - face.left) * 400 > 90


def test_windows_are_not_shifted() -> None:
    """A ramp keeps its values at the centers of the smaller window's pixels."""
    ramp = Image.fromarray(np.tile(np.arange(240, dtype=np.uint8), (240, 1)))

    window = np.asarray(_window(ramp, np.array([0.0, 0.0, 240.0, 240.0]), 24), dtype=float)

    assert np.abs(window - (10 * np.arange(24) + 4.5)).max() <= 0.5


def test_the_region_is_a_square_around_the_face(detector: FaceDetector, image: Image.Image) -> None:
    """In pixels both sides are equal, and its center is that of the face."""
    (face,) = detector.detect(image)
    region = face_region(image, face)

    assert (region.right - region.left) * 400 == pytest.approx((region.bottom - region.top) * 300)
    assert region.left + region.right == pytest.approx(face.left + face.right)


@pytest.mark.parametrize("shade", ["flat", "noise", "stripes"])
def test_an_image_without_a_face_is_rejected(detector: FaceDetector, shade: str) -> None:
    """Uniform areas, noise and stripes are not faces."""
    pixels = {
        "flat": np.full((300, 300), 90, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8),
        "stripes": np.tile(np.arange(300, dtype=np.uint8) % 40 * 6, (300, 1)),
    }[shade]

    with pytest.raises(NoFaceError, match="No face was found"):
        detector.find_region(Image.fromarray(pixels))


@pytest.mark.parametrize("size", [(8, 8), (8, 3000), (3000, 8), (129, 129), (1, 500)])
def test_extreme_shapes_have_no_face(detector: FaceDetector, size: tuple[int, int]) -> None:
    """Narrow and tiny images raise nothing."""
    assert detector.detect(Image.new("L", size, 200)) == []


def test_a_small_image_or_a_large_face_is_not_cropped(detector: FaceDetector) -> None:
    """Up to 128 pixels nothing is detected; a face that fills the image is not cropped again."""
    assert detector.find_region(Image.new("L", (128, 128))) == WHOLE
    assert face_region(Image.new("L", (300, 300)), FaceRegion(left=0.1, top=0.05, right=0.9, bottom=0.95)) == WHOLE


def test_a_region_beyond_the_edge_repeats_the_edge() -> None:
    """There is no black border, which no training face had."""
    image = Image.fromarray(np.tile(np.array([[10, 250]], np.uint8).repeat(50, axis=1), (100, 1)))
    outside = np.asarray(crop_region(image, FaceRegion(left=-0.5, top=0, right=0.5, bottom=1)))

    assert outside.shape == (100, 100)
    assert set(outside.flatten().tolist()) == {10}


def test_predict_finds_the_face_on_request(client: TestClient, image: Image.Image) -> None:
    """The response has the region; without the option the whole image is used."""
    found = client.post("/predict?face=find", files={"image": png(image)}).json()
    whole = client.post("/predict", files={"image": png(image)}).json()

    assert set(found["face"]) == {"left", "top", "right", "bottom"}
    assert "face" not in whole
    assert found["features"] != whole["features"]


def test_predict_rejects_an_image_without_a_face(client: TestClient, app: EmotionApp) -> None:
    """422 with its own code, for one image and within a batch, and nothing in the log."""
    nothing = png(Image.new("L", (300, 300), 90))
    response = client.post("/predict?face=find", files={"image": nothing})
    batch = client.post("/predict_batch?face=find", files=[("images", nothing)])

    assert response.status_code == 422
    assert response.json()["error"]["code"] == batch.json()[0]["error"]["code"] == "no_face"
    assert logged(app) == []


def test_the_stored_image_is_the_face(app: EmotionApp, image: Image.Image) -> None:
    """People label, and later networks are trained with, exactly the network's input."""
    with TestClient(app.routes()) as client:
        body = client.post("/predict?face=find", files={"image": png(image)}).json()
    logged(app)
    (stored,) = (app.settings.data_dir / "predictions" / "images").rglob("*.png")
    region = FaceRegion(**body["face"])
    expected = face_pixels(crop_region(decode_gray(png(image), WORKING_SIDE_PX).image, region))

    assert np.array_equal(decode_image(stored.read_bytes()).pixels, expected)
