"""Strangers' requests over real connections: each gets a right answer, and the service is well after each."""

from __future__ import annotations

import io
import json
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import uvicorn
from PIL import Image

from emotion_assets.core.errors import ImageError
from emotion_assets.core.features import image_features
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import decode_image
from emotion_service.app import EmotionApp
from emotion_service.settings import Settings
from tests import abuse
from tests.malformed_images import outliers

STATUS_OF_CODE = {"empty_image": 400, "image_too_large": 413, "unsupported_format": 415, "unreadable_image": 422}


class InferenceOutput:
    """The application behind a real server on a real port."""

    def __init__(self, app: EmotionApp) -> None:
        self.app = app
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app.routes(), log_level="critical", ws="none", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    def __enter__(self) -> Self:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()

    def num_records(self) -> int:
        """How many answers the log has, once it has caught up."""
        assert self.app.worker
        while not self.app.worker.log._queue.empty():
            time.sleep(0.01)
        time.sleep(0.05)
        return self.app.worker.log.num_written


@pytest.fixture(scope="module")
def served(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceOutput]:
    app = EmotionApp(Settings(tmp_path_factory.mktemp("data"), num_workers=1, max_concurrency=16, timeout_seconds=20))
    app.load(bundle_dir)
    with InferenceOutput(app) as server:
        yield server
    app.close()


def test_every_abuse_gets_its_answer(served: InferenceOutput, face: bytes) -> None:
    """The status is among the right ones, the body tells nothing of the inside, and a good request works after it."""
    all_cases = list(abuse.cases(face))
    wrong = []
    for case in all_cases:
        status, body = abuse.send(served.address, case.raw)
        if status not in case.statuses:
            wrong.append((case.name, status, body[:200]))
        if b"Traceback" in body or b"site-packages" in body:
            wrong.append((case.name, "shows its inside", body[:200]))
        healthy, _ = abuse.send(served.address, abuse.raw(face))
        if healthy != 200:
            wrong.append((case.name, "then a good request", healthy))

    assert len(all_cases) >= 100
    assert wrong == []


def test_the_log_has_one_record_for_each_answered_image(served: InferenceOutput, face: bytes) -> None:
    """Images inside a batch count one by one; whatever was rejected leaves nothing."""
    before = served.num_records()
    num_answered = 0
    for case in abuse.cases(face):
        status, body = abuse.send(served.address, case.raw)
        if status == 200:
            answer = json.loads(body)
            items = answer if isinstance(answer, list) else [answer]
            num_answered += sum("prediction_id" in item and "features" in item for item in items)

    assert num_answered > 50
    assert served.num_records() - before == num_answered


def test_ingest_and_service_agree_on_odd_images(served: InferenceOutput) -> None:
    """Accepted or rejected, with the same reason and the same pixels, whichever way an image comes in."""
    num_accepted = 0
    for odd in outliers():
        status, body = abuse.send(served.address, abuse.raw(odd.content))
        answer = json.loads(body)
        try:
            pixels = decode_image(odd.content).pixels
        except ImageError as error:
            assert (status, answer["error"]["code"]) == (STATUS_OF_CODE[error.code], error.code), odd.name
            continue
        num_accepted += 1
        assert status == 200, (odd.name, answer)
        # A dozen statistics of all pixels: other pixels would have other values.
        expected = image_features(pixels)
        assert [answer["features"][name] for name in STATISTICS] == [expected[name] for name in STATISTICS], odd.name

    assert num_accepted > 50


def test_mutated_images_get_an_answer(served: InferenceOutput, faces: list[tuple[str, bytes]]) -> None:
    """Random damage, with a fresh seed each time: 200 or a rejection, never a failure or a hang."""
    seed = secrets.randbits(32)
    chance = random.Random(seed)
    originals = list(originals_of(faces[0][1]))
    for number in range(300):
        content = mutated(chance.choice(originals), chance)
        status, body = abuse.send(served.address, abuse.raw(content), seconds=20)
        assert status in {200, 400, 413, 415, 422}, (seed, number, status, body[:200])


def originals_of(face: bytes) -> Iterator[bytes]:
    """The same face in every format that is read."""
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


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Flip, cut, repeat or move some bytes, most often near the start, where the headers are."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 12)):
        limit = chance.choice((64, 512, len(damaged)))
        place = chance.randrange(max(1, min(limit, len(damaged))))
        kind = chance.randrange(4)
        if kind == 0:
            damaged[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            damaged[place : place + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        elif kind == 2:
            del damaged[place : place + chance.randint(1, 64)]
        else:
            damaged[place:place] = damaged[place : place + chance.randint(1, 64)]
    return bytes(damaged)


def test_the_dearest_image_holds_nobody_up(served: InferenceOutput, face: bytes) -> None:
    """While the largest allowed image is decoded, others are answered."""
    rows = np.random.default_rng(0).integers(0, 256, (6000, 6500), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(rows[:1200, :1200]).resize((6500, 6000)).convert("RGB").save(file, "JPEG", quality=40)
    large = file.getvalue()
    if len(large) > 10 * 2**20:
        large = large[: 10 * 2**20]
    done = threading.Event()
    statuses: list[int] = []

    def send_large() -> None:
        statuses.append(abuse.send(served.address, abuse.raw(large))[0])
        done.set()

    thread = threading.Thread(target=send_large)
    thread.start()
    num_meanwhile = 0
    while not done.is_set():
        num_meanwhile += abuse.send(served.address, abuse.raw(face))[0] == 200
    thread.join()

    assert statuses == [200]
    assert num_meanwhile >= 2
