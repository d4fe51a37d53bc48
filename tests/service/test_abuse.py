"""Abusive requests over real connections: each gets an appropriate response, and the service stays healthy."""

from __future__ import annotations

import io
import json
import random
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_assets.core.errors import ImageError
from emotion_assets.core.features import image_features
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import decode_image
from tests import abuse
from tests.malformed_images import malformed_images
from tests.service.conftest import RunningServer, make_app, records_below

STATUS_OF_CODE = {"empty_image": 400, "image_too_large": 413, "unsupported_format": 415, "unreadable_image": 422}


@pytest.fixture(scope="module")
def server(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    app = make_app(tmp_path_factory.mktemp("data"), bundle_dir, max_concurrency=16)
    with RunningServer(app) as running:
        yield running
    app.close()


def num_records(server: RunningServer) -> int:
    """The number of logged predictions, once the log has caught up."""
    number = -1
    while number != (number := len(records_below(server.app.settings.data_dir))):
        time.sleep(0.5)
    return number


def test_every_abuse_gets_its_response(server: RunningServer, face: bytes) -> None:
    """The status is an expected one, the body shows no internals, and the next good request succeeds."""
    all_cases = list(abuse.cases(face))
    wrong = []
    for case in all_cases:
        status, body = abuse.send(server.address, case.raw)
        if status not in case.statuses:
            wrong.append((case.name, status, body[:200]))
        if b"Traceback" in body or b"site-packages" in body:
            wrong.append((case.name, "shows internals", body[:200]))
        healthy, _ = abuse.send(server.address, abuse.raw(face))
        if healthy != 200:
            wrong.append((case.name, "then a good request", healthy))

    assert len(all_cases) >= 100
    assert wrong == []


def test_the_log_has_one_record_for_each_prediction(server: RunningServer, face: bytes) -> None:
    """Each image of a batch has its own record; a rejected one has none."""
    before = num_records(server)
    num_predictions = 0
    for case in abuse.cases(face):
        status, body = abuse.send(server.address, case.raw)
        if status == 200:
            response = json.loads(body)
            items = response if isinstance(response, list) else [response]
            num_predictions += sum("prediction_id" in item and "features" in item for item in items)

    assert num_predictions > 50
    assert num_records(server) - before == num_predictions


def test_ingest_and_service_agree_on_malformed_images(server: RunningServer) -> None:
    """Both accept an image, with the same pixels, or reject it for the same reason."""
    num_accepted = 0
    for malformed in malformed_images():
        status, body = abuse.send(server.address, abuse.raw(malformed.content))
        response = json.loads(body)
        try:
            pixels = decode_image(malformed.content).pixels
        except ImageError as error:
            assert (status, response["error"]["code"]) == (STATUS_OF_CODE[error.code], error.code), malformed.name
            continue
        num_accepted += 1
        assert status == 200, (malformed.name, response)
        # A dozen statistics of all pixels: other pixels would have other values.
        expected = image_features(pixels)
        assert [response["features"][name] for name in STATISTICS] == [expected[name] for name in STATISTICS], (
            malformed.name
        )

    assert num_accepted > 50


def test_mutated_images_get_a_response(server: RunningServer, faces: list[tuple[str, bytes]]) -> None:
    """Random damage, with a new seed each time: 200 or a rejection, never a failure or a hang."""
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    originals = list(encode_as_every_format(faces[0][1]))
    for number in range(300):
        content = mutate(rng.choice(originals), rng)
        status, body = abuse.send(server.address, abuse.raw(content), seconds=20)
        assert status in {200, 400, 413, 415, 422}, (seed, number, status, body[:200])


def encode_as_every_format(face: bytes) -> Iterator[bytes]:
    """Yield the same face in every supported format."""
    yield face
    image = Image.open(io.BytesIO(face))
    for name, options in (
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        file = io.BytesIO()
        image.save(file, name, **options)
        yield file.getvalue()


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Flip, delete or repeat some bytes, most often near the start, where the headers are."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 12)):
        limit = rng.choice((64, 512, len(damaged)))
        start = rng.randrange(max(1, min(limit, len(damaged))))
        kind = rng.randrange(4)
        if kind == 0:
            damaged[start : start + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            damaged[start : start + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        elif kind == 2:
            del damaged[start : start + rng.randint(1, 64)]
        else:
            damaged[start:start] = damaged[start : start + rng.randint(1, 64)]
    return bytes(damaged)


def test_the_largest_image_blocks_no_other_request(server: RunningServer, face: bytes) -> None:
    """While the largest allowed image is decoded, other requests succeed."""
    rows = np.random.default_rng(0).integers(0, 256, (6000, 6500), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(rows[:1200, :1200]).resize((6500, 6000)).convert("RGB").save(file, "JPEG", quality=40)
    large = file.getvalue()
    if len(large) > 10 * 2**20:
        large = large[: 10 * 2**20]
    done = threading.Event()
    statuses: list[int] = []

    def send_large() -> None:
        statuses.append(abuse.send(server.address, abuse.raw(large))[0])
        done.set()

    thread = threading.Thread(target=send_large)
    thread.start()
    num_others = 0
    while not done.is_set():
        num_others += abuse.send(server.address, abuse.raw(face))[0] == 200
    thread.join()

    assert statuses == [200]
    assert num_others >= 2
