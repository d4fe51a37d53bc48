"""Generate human-like load, with Locust's own page: `locust -f benchmarks/locustfile.py --host http://127.0.0.1:3001`.

Needs the extra `bench`. Most visitors send a drawn face; some open the page, send an invalid file, or give feedback.
For figures use `python -m benchmarks.serving`, whose own cost is far smaller.
"""

from __future__ import annotations

import numpy as np
from locust import HttpUser, between, task

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.demo.faces import draw_face

_rng = np.random.default_rng()
FACES = [(emotion, draw_face(emotion, _rng)) for emotion in EMOTIONS for _ in range(10)]


class Visitor(HttpUser):
    """A visitor of the page."""

    wait_time = between(0.5, 2)

    @task(8)
    def predict(self) -> None:
        emotion, content = FACES[_rng.integers(len(FACES))]
        with self.client.post("/predict", files={"image": content}, catch_response=True) as response:
            if response.status_code == 429:
                response.success()  # the rate limit works as configured
                return
            prediction = response.json()
        if _rng.random() < 0.1:
            label = {"prediction_id": prediction["prediction_id"], "emotion": emotion}
            self.client.post("/feedback", json=label)

    @task(1)
    def open_page(self) -> None:
        self.client.get("/")
        self.client.get("/model")

    @task(1)
    def send_invalid_file(self) -> None:
        with self.client.post("/predict", files={"image": b"no image"}, catch_response=True) as response:
            if response.status_code == 415:
                response.success()
