"""The HTTP application: thin handlers around uploads, inference and logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from anyio import to_thread
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from emotion_assets.core.bundle import runtime_precision
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import ImageError
from emotion_assets.core.images import needs_worker_thread
from emotion_assets.core.remote import RemoteRoot
from emotion_service.errors import RequestError, error_body
from emotion_service.feedback import parse_feedback
from emotion_service.inference import DeadlineExceededError, PredictionResult, PredictOptions
from emotion_service.labels import LabelQueue
from emotion_service.memory import large_images_that_fit, upload_bytes_that_fit
from emotion_service.metrics import Metrics
from emotion_service.middleware import RequestMiddleware
from emotion_service.model_watcher import ModelWatcher
from emotion_service.openapi import Endpoint, form, openapi_document, query
from emotion_service.schemas import ErrorResponse, Feedback, FeedbackResponse, LabelRequest, ModelInfo, Prediction
from emotion_service.settings import Settings
from emotion_service.storage import open_storage
from emotion_service.uploads import (
    BATCH_FIELD_NAME,
    FIELD_NAME,
    MAX_BATCH_IMAGES,
    BodyBudget,
    read_image,
    read_images,
    read_json_body,
)
from emotion_service.worker_state import WorkerState

_PREDICT_PARAMETERS: Final = (
    query("heatmap", "1 adds the class activation map of the emotion.", ("0", "1")),
    query("face", "whole: the image is a face. find: detect and crop the largest face first.", ("whole", "find")),
)
_FILE: Final = {"type": "string", "format": "binary"}
_FILES: Final = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_IMAGES, "items": _FILE}
_TOKEN_ERRORS: Final = (401, 429, 431)
_BODY_ERRORS: Final = (400, 413, 415, 503, 504, *_TOKEN_ERRORS)


class EmotionApp:
    """The state that the routes share: the model (None until one is loaded), the limits, the worker's logs."""

    def __init__(self, settings: Settings) -> None:
        """Start without a model; `load` adds one."""
        self.settings = settings
        self.model: Classifier | None = None
        self.worker: WorkerState | None = None
        self._watcher: ModelWatcher | None = None
        self._storage = open_storage(settings)
        self._queue = LabelQueue(self._storage)
        self._num_running = 0
        # A pool of its own: a thread whose request has timed out still needs its memory until it is done.
        num_large = large_images_that_fit(settings.workers)
        self._large = ThreadPoolExecutor(num_large, "large-images")
        # Slow senders: far more bodies may arrive at a time than predictions are made.
        self._budget = BodyBudget(8 * settings.max_concurrency, upload_bytes_that_fit(settings.workers, num_large))
        self.endpoints = self._describe_endpoints()
        self._documents: dict[str, Response] = {}
        """The description of the interface, by the model's version."""

    def load(self, bundle_dir: Path) -> None:
        """Load a bundle, run its self-test, and serve it from now on.

        Raises:
            BundleMismatchError: the bundle is incomplete, or its self-test fails.
        """
        model = Classifier(bundle_dir)
        model.self_test()
        if self.worker is None:
            self.worker = WorkerState(self.settings)
        self.model = model
        self.worker.metrics.record_model(model.version)

    def follow_champion(self) -> None:
        """Load the champion of the data root now and whenever it changes, if the settings say so."""
        if self.settings.follow_champion:
            models_dir = self.settings.paths.models
            remote = self._storage if isinstance(self._storage, RemoteRoot) else None
            self._watcher = ModelWatcher(models_dir, lambda: self.version, self.load, remote)
            self._watcher.start()

    @property
    def version(self) -> str:
        """The version of the loaded model, or `none`."""
        return self.model.version if self.model else "none"

    def close(self) -> None:
        """Stop following the champion, and write what is queued for the logs."""
        if self._watcher:
            self._watcher.close()
        self._large.shutdown(wait=False, cancel_futures=True)
        if self.worker:
            self.worker.close()

    def routes(self) -> Starlette:
        """Build the ASGI application."""
        routes = [
            Route(each.path, _respond(each.handler, each.response), methods=[each.method])
            for each in self.endpoints
            if each.handler
        ]
        # Matches what no route does: BentoML would answer such requests itself, around the middleware.
        routes.append(Route("/{path:path}", Response(status_code=404)))
        allowed = {each.path: "GET, HEAD" if each.method == "GET" else each.method for each in self.endpoints}
        allowed |= dict.fromkeys(("/healthz", "/schema.json"), "GET, HEAD")  # BentoML's, too
        protected = frozenset(each.path for each in self.endpoints if each.is_protected)
        middleware = [Middleware(RequestMiddleware, self.settings, self._metrics_or_none, allowed, protected)]
        if self.settings.cors_origins:
            cors = Middleware(
                CORSMiddleware,
                allow_origins=list(self.settings.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
                expose_headers=["Retry-After", "X-Request-Id"],
            )
            middleware.insert(0, cors)
        return Starlette(routes=routes, middleware=middleware)

    def _describe_endpoints(self) -> tuple[Endpoint, ...]:
        html, text, json_type = "text/html", "text/plain", "application/json"
        return (
            Endpoint("GET", "/", "The web page", html, self._page("index.html")),
            Endpoint(
                "POST",
                "/predict",
                "Predict the emotion of one face",
                Prediction,
                self._predict,
                body={"multipart/form-data": form(FIELD_NAME, _FILE), "image/*": _FILE},
                parameters=_PREDICT_PARAMETERS,
                errors=(*_BODY_ERRORS, 422),
            ),
            Endpoint(
                "POST",
                "/predict_batch",
                f"Predict the emotions of up to {MAX_BATCH_IMAGES} faces; each has a prediction or an error",
                list[Prediction | ErrorResponse],
                self._predict_batch,
                body={"multipart/form-data": form(BATCH_FIELD_NAME, _FILES)},
                parameters=_PREDICT_PARAMETERS,
                errors=_BODY_ERRORS,
            ),
            Endpoint(
                "POST",
                "/feedback",
                "Label a prediction, once",
                FeedbackResponse,
                self._feedback,
                body={json_type: Feedback},
                errors=(*_BODY_ERRORS, 404, 409, 422),
            ),
            Endpoint("GET", "/label", "The page for labelling", html, self._page("label.html")),
            Endpoint(
                "GET",
                "/label_requests",
                "Predictions that need a label",
                list[LabelRequest],
                self._label_requests,
                errors=(403, *_TOKEN_ERRORS),
            ),
            Endpoint(
                "GET",
                "/label_image",
                "The stored image of a prediction",
                "image/*",
                self._label_image,
                parameters=(query("prediction_id", "From a label request."),),
                errors=(403, 404, *_TOKEN_ERRORS),
            ),
            Endpoint("GET", "/model", "The deployed model", ModelInfo, self._model, errors=(503,)),
            Endpoint("GET", "/docs.json", "This document", json_type, self._docs),
            Endpoint("GET", "/metrics", "Prometheus metrics", text, self._metrics, errors=(503,)),
            # BentoML handles these.
            Endpoint("GET", "/livez", "Whether the process is alive", text),
            Endpoint("GET", "/readyz", "Whether a model is loaded", text, errors=(503,)),
        )

    def _page(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        """Make a handler that returns a page, which is one file with its style and script."""
        text = Path(__file__).with_name("web").joinpath(name).read_text(encoding="utf-8")

        async def page(_: Request) -> Response:
            # Pairs, because JavaScript sorts the integer-like keys of an object before all others.
            titles = list(self.model.manifest.titles.items()) if self.model else []
            # No text may end the script that it stands in.
            return HTMLResponse(text.replace("TITLES_HERE", json.dumps(titles).replace("<", "\\u003c")))

        return page

    async def _docs(self, _: Request) -> Response:
        if self.version not in self._documents:  # it takes 26 ms to write
            emotions = self.model.emotions if self.model else ()
            document = openapi_document(self.endpoints, self.version, emotions)
            self._documents = {self.version: JSONResponse(document)}
        return self._documents[self.version]

    async def _metrics(self, _: Request) -> Response:
        worker = self._loaded()[1]
        return Response(await to_thread.run_sync(worker.metrics.text), media_type=CONTENT_TYPE_LATEST)

    async def _model(self, _: Request) -> ModelInfo:
        manifest = self._loaded()[0].manifest
        return ModelInfo(
            model_version=manifest.version,
            created_at=manifest.created_at,
            emotions=manifest.emotions,
            titles=manifest.titles,
            image_size_px=manifest.image_size_px,
            temperature=manifest.temperature,
            data_fingerprint=manifest.data_fingerprint,
            metrics=manifest.metrics,
            num_parameters=manifest.training["num_parameters"],
            runtime_precision=runtime_precision(manifest),
            stores_images=self.settings.store_images,
            image_retention_days=self.settings.image_retention_days,
        )

    async def _predict(self, request: Request) -> Prediction:
        model, worker = self._loaded()
        options = _parse_options(request)
        async with self._time_limit() as deadline:
            content = await read_image(request, self._budget)
            with self._slot():
                (result,) = await self._run(model, worker, [content], options, deadline)
        if isinstance(result, ImageError):
            raise result
        worker.record_prediction(result)
        return result.prediction

    async def _predict_batch(self, request: Request) -> list[Prediction | ErrorResponse]:
        model, worker = self._loaded()
        options = _parse_options(request)
        async with self._time_limit() as deadline:
            contents = await read_images(request, self._budget)
            with self._slot():
                results = await self._run(model, worker, contents, options, deadline)
        items: list[Prediction | ErrorResponse] = []
        for result in results:
            if isinstance(result, PredictionResult):
                worker.record_prediction(result)
                items.append(result.prediction)
            else:
                worker.metrics.errors.labels(result.code).inc()
                items.append(error_body(result))
        return items

    async def _feedback(self, request: Request) -> FeedbackResponse:
        model, worker = self._loaded()
        async with self._time_limit():
            feedback = parse_feedback(await read_json_body(request), model.emotions)
        # Outside the time limit: a label that is stored must not be reported as failed.
        await to_thread.run_sync(worker.feedback.save, feedback)
        worker.metrics.feedback.labels(feedback.emotion).inc()
        return FeedbackResponse(**feedback.model_dump())

    async def _label_requests(self, _: Request) -> list[LabelRequest]:
        return await to_thread.run_sync(self._require_queue().pending)

    async def _label_image(self, request: Request) -> Response:
        queue = self._require_queue()
        found = await to_thread.run_sync(queue.image, request.query_params.get("prediction_id", ""))
        if found is None:
            raise RequestError(404, "image_not_found", "No image of this prediction is stored.")
        return Response(found[0], media_type=found[1], headers={"Cache-Control": "no-store"})

    async def _run(
        self,
        model: Classifier,
        worker: WorkerState,
        contents: list[bytes],
        options: PredictOptions,
        deadline: float,
    ) -> list[PredictionResult | ImageError]:
        predict = worker.predictor.predict
        if len(contents) == 1 and not options.detect_face and not needs_worker_thread(contents[0]):
            # On the event loop: a worker has one core, and a thread would cost a quarter more.
            return predict(model, contents, options, deadline)
        with self._budget.body() as add:
            add(sum(map(len, contents)))
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._large, predict, model, contents, options, deadline)

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        """Occupy one of the worker's slots for predictions."""
        if self._num_running >= self.settings.max_concurrency:
            message = "There are too many requests at once. Try again in a second."
            raise RequestError(429, "too_many_requests", message, {"Retry-After": "1"})
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1

    @contextlib.asynccontextmanager
    async def _time_limit(self) -> AsyncIterator[float]:
        """Enforce the time limit; yield the deadline on the clock of `time.monotonic`."""
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                yield time.monotonic() + self.settings.timeout_seconds
        except (TimeoutError, DeadlineExceededError) as error:
            message = f"The request took more than {self.settings.timeout_seconds:g} s. Send a smaller image."
            raise RequestError(504, "timeout", message) from error
        except ClientDisconnect as error:
            raise RequestError(400, "incomplete_body", "The connection closed before the body was complete.") from error

    def _metrics_or_none(self) -> Metrics | None:
        return self.worker.metrics if self.worker else None

    def _loaded(self) -> tuple[Classifier, WorkerState]:
        if self.model is None or self.worker is None:
            raise RequestError(503, "no_model", "No model is loaded. Try again in a few seconds.", {"Retry-After": "5"})
        return self.model, self.worker

    def _require_queue(self) -> LabelQueue:
        if not self.settings.token.get_secret_value():
            message = "Labelling shows images of people, so it needs a token. Set EMOTION_TOKEN and restart."
            raise RequestError(403, "token_not_configured", message)
        return self._queue


def _respond(handler: Callable[[Request], Awaitable[Any]], kind: Any) -> Callable[[Request], Awaitable[Response]]:
    """Make a Starlette endpoint of a handler that returns an instance of `kind`, or a response."""
    adapter = TypeAdapter(Any if isinstance(kind, str) else kind)

    async def endpoint(request: Request) -> Response:
        result = await handler(request)
        if isinstance(result, Response):
            return result
        return Response(adapter.dump_json(result, exclude_none=True), media_type="application/json")

    return endpoint


def _parse_options(request: Request) -> PredictOptions:
    """Parse the query; reject unknown values instead of ignoring them."""
    given = {}
    for parameter in _PREDICT_PARAMETERS:
        name, choices = parameter["name"], parameter["schema"]["enum"]
        given[name] = request.query_params.get(name, choices[0])
        if given[name] not in choices:
            message = f"{name} is {given[name][:20]!r}. Use {' or '.join(choices)}."
            raise RequestError(400, "invalid_query", message)
    return PredictOptions(with_heatmap=given["heatmap"] == "1", detect_face=given["face"] == "find")
