"""The routes: thin functions around reading a picture, running the model and logging the answer."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.images import decode_picture
from emotion_assets.core.logged_values import features_of
from emotion_service.champion import ChampionWatch
from emotion_service.errors import EXCEPTION_HANDLERS, RequestError
from emotion_service.openapi import openapi_document
from emotion_service.prediction_log import PredictionLog
from emotion_service.settings import Settings
from emotion_service.uploads import read_picture

_PAGE: Final = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
# Routes that the server around this app answers; it answers GET only.
_SERVER_ROUTES: Final = ("/livez", "/healthz", "/readyz", "/metrics", "/schema.json")
_ALL_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]


class EmotionApp:
    """What the routes share: the model, the log, the limits. `model` is None until one is loaded."""

    def __init__(self, settings: Settings) -> None:
        """Start without a model; `load` brings one."""
        self.settings = settings
        self.model: Classifier | None = None
        self.log: PredictionLog | None = None
        self._watch: ChampionWatch | None = None
        self._num_running = 0

    def load(self, bundle_dir: Path) -> None:
        """Load a bundle, test it on its known answer, and start answering.

        Raises:
            BundleMismatchError: the bundle is incomplete or answers differently from when it was made.
        """
        model = Classifier(bundle_dir)
        model.self_test()
        self.log = self.log or PredictionLog(self.settings.data_dir / "predictions")
        self.model = model

    def follow_champion(self) -> None:
        """Serve whatever the pipeline accepts from now on, if it works on the same data root and is asked to."""
        if self.settings.follow_champion:
            self._watch = ChampionWatch(self.settings.data_dir / "models", lambda: self.version, self.load)
            self._watch.start()

    @property
    def version(self) -> str:
        """The version of the model that answers, or `none`."""
        return self.model.version if self.model else "none"

    def close(self) -> None:
        """Stop following, and write the rest of the log."""
        if self._watch:
            self._watch.close()
        if self.log:
            self.log.close()

    def routes(self) -> Starlette:
        """Return the application: every path is answered here, or by the server around it."""
        table: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            "/": ("GET", self._page),
            "/predict": ("POST", self._predict),
            "/model": ("GET", self._facts),
            "/docs.json": ("GET", self._docs),
        }
        routes = [Route(path, handler, methods=[method]) for path, (method, handler) in table.items()]
        allowed = {path: "GET, HEAD" if method == "GET" else method for path, (method, _) in table.items()}
        allowed |= dict.fromkeys(_SERVER_ROUTES, "GET, HEAD")

        async def refuse(request: Request) -> Response:
            # A request whose path exists came with another method: those with the right one matched before.
            path = request.url.path
            if path in allowed:
                raise RequestError(
                    405,
                    "method_not_allowed",
                    f"{path} does not take {request.method}. Use {allowed[path]}.",
                    {"Allow": allowed[path]},
                )
            raise RequestError(404, "not_found", "There is no such route. GET /docs.json lists them.")

        routes.append(Route("/{path:path}", refuse, methods=_ALL_METHODS))
        return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(_PAGE)

    async def _docs(self, _: Request) -> Response:
        return JSONResponse(openapi_document(self.version))

    async def _facts(self, _: Request) -> Response:
        manifest = self._require_model().manifest
        return JSONResponse(
            {
                "model_version": manifest.version,
                "created_at": manifest.created_at,
                "emotions": manifest.emotions,
                "image_size_px": manifest.image_size_px,
                "temperature": manifest.temperature,
                "data_fingerprint": manifest.data_fingerprint,
                "metrics": manifest.metrics,
                "num_parameters": manifest.training["num_parameters"],
            }
        )

    async def _predict(self, request: Request) -> Response:
        model = self._require_model()
        if self._num_running >= self.settings.max_concurrency:
            raise RequestError(
                429, "too_many_requests", "Too many requests at once. Try again in a second.", {"Retry-After": "1"}
            )
        self._num_running += 1
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                content = await read_picture(request)
                with_heatmap = request.query_params.get("heatmap") == "1"
                # A thread, so that a large picture does not hold up the others.
                prediction = await to_thread.run_sync(predict, model, content, with_heatmap)
        except TimeoutError as error:
            message = f"The answer took more than {self.settings.timeout_seconds:g} s. Send a smaller picture."
            raise RequestError(504, "timeout", message) from error
        except ClientDisconnect as error:
            raise RequestError(400, "incomplete_body", "The connection closed before the body was complete.") from error
        finally:
            self._num_running -= 1
        assert self.log
        self.log.append(_log_record(prediction, content))
        return JSONResponse(prediction)

    def _require_model(self) -> Classifier:
        if self.model is None:
            raise RequestError(503, "no_model", "No model is ready. Try again in a few seconds.", {"Retry-After": "5"})
        return self.model


def predict(model: Classifier, content: bytes, with_heatmap: bool = False) -> dict[str, Any]:
    """Answer for the bytes of one picture, as the JSON body of `POST /predict`.

    Raises:
        PictureError: the picture is refused.
    """
    pixels = decode_picture(content).pixels
    predictions = model.predict(pixels[None], with_maps=with_heatmap)
    probabilities = predictions.probabilities[0].astype(np.float64)
    best = int(probabilities.argmax())
    prediction: dict[str, Any] = {
        "prediction_id": uuid.uuid4().hex,
        "emotion": EMOTIONS[best],
        "probabilities": dict(zip(EMOTIONS, (probabilities / probabilities.sum()).tolist(), strict=True)),
        "model_version": model.version,
        "features": features_of(pixels),
    }
    if predictions.activation_maps is not None:
        prediction["heatmap"] = _heatmap(predictions.activation_maps[0, best])
    return prediction


def _heatmap(activation_map: npt.NDArray[np.float32]) -> list[list[float]]:
    """Scale a class activation map (row, column) to 0..1; a place that speaks against the emotion is 0."""
    positive = np.maximum(activation_map.astype(np.float64), 0)
    scaled: list[list[float]] = np.round(positive / max(float(positive.max()), 1e-9), 4).tolist()
    return scaled


def _log_record(prediction: dict[str, Any], content: bytes) -> dict[str, Any]:
    kept = ("prediction_id", "model_version", "emotion", "probabilities", "features")
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **{name: prediction[name] for name in kept},
        "picture_sha256": hashlib.sha256(content).hexdigest(),
    }
