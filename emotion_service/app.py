"""The routes: thin functions around reading images, running the model and logging the answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from emotion_assets.core.bundle import runtime_precision
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import ImageError
from emotion_assets.core.images import NeedsWorkerThreadError
from emotion_assets.core.layout import MODELS
from emotion_service.errors import (
    EXCEPTION_HANDLERS,
    Handler,
    RequestError,
    error_body,
    image_error_response,
    request_error_response,
)
from emotion_service.feedback import read_feedback
from emotion_service.inference import DeadlineExceededError, PredictionResult, PredictOptions
from emotion_service.labels import LabelQueue
from emotion_service.metrics import MEDIA_TYPE, Metrics
from emotion_service.middleware import RequestMiddleware
from emotion_service.model_watcher import ModelWatcher
from emotion_service.openapi import openapi_document
from emotion_service.pages import page
from emotion_service.settings import Settings
from emotion_service.uploads import BodyBudget, read_image, read_images, read_json_body
from emotion_service.worker import Worker

_PAGE: Final = page("web/index.html")
_LABEL_PAGE: Final = page("web/label.html")
# Routes that the server around this app answers; it answers GET only.
_SERVER_ROUTES: Final = ("/livez", "/healthz", "/readyz", "/schema.json")
_ALL_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]
_WISHES: Final = {"heatmap": ("0", "1"), "face": ("whole", "find")}
"""Values that the query of `/predict` may have; the first is the default."""
_MAX_LARGE_AT_ONCE: Final = 4
"""Large images, batches and searches for faces that a worker does at a time: 40 megapixels take 160 MB."""
_GUARDED: Final = frozenset({"/predict", "/predict_batch", "/feedback", "/label_requests", "/label_image"})


class EmotionApp:
    """What the routes share: the model, the log, the limits. `model` is None until one is loaded."""

    def __init__(self, settings: Settings) -> None:
        """Start without a model; `load` brings one."""
        self.settings = settings
        self.model: Classifier | None = None
        self.worker: Worker | None = None
        self._watch: ModelWatcher | None = None
        self._queue = LabelQueue(settings.data_dir)
        self._num_running = 0
        # Far more bodies may arrive at a time than are answered: senders are slow.
        self._budget = BodyBudget(8 * settings.max_concurrency)
        # Its threads and no more: one that nobody waits for any longer still needs its memory until it is done.
        self._large = ThreadPoolExecutor(_MAX_LARGE_AT_ONCE, "large-images")

    def load(self, bundle_dir: Path) -> None:
        """Load a bundle, test it on its known answer, and start answering.

        Raises:
            BundleMismatchError: the bundle is incomplete or answers differently from when it was made.
        """
        model = Classifier(bundle_dir)
        model.self_test()
        if self.worker is None:
            self.worker = Worker(self.settings)
        self.model = model
        self.worker.metrics.record_model(model.version)

    def follow_champion(self) -> None:
        """Serve whatever the pipeline accepts from now on, if it works on the same data root and is asked to."""
        if self.settings.follow_champion:
            self._watch = ModelWatcher(self.settings.data_dir / MODELS, lambda: self.version, self.load)
            self._watch.start()

    @property
    def version(self) -> str:
        """The version of the model that answers, or `none`."""
        return self.model.version if self.model else "none"

    def close(self) -> None:
        """Stop following, and write the rest of the log."""
        if self._watch:
            self._watch.close()
        self._large.shutdown(wait=False, cancel_futures=True)
        if self.worker:
            self.worker.close()

    def routes(self) -> Starlette:
        """Return the application: every path is answered here, or by the server around it."""
        table: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            "/": ("GET", self._page),
            "/predict": ("POST", self._predict),
            "/predict_batch": ("POST", self._predict_batch),
            "/feedback": ("POST", self._feedback),
            "/label": ("GET", self._label_page),
            "/label_requests": ("GET", self._label_requests),
            "/label_image": ("GET", self._label_image),
            "/model": ("GET", self._facts),
            "/docs.json": ("GET", self._docs),
            "/metrics": ("GET", self._metrics),
        }
        routes = [Route(path, handler, methods=[method]) for path, (method, handler) in table.items()]
        allowed = {path: "GET, HEAD" if method == "GET" else method for path, (method, _) in table.items()}
        allowed |= dict.fromkeys(_SERVER_ROUTES, "GET, HEAD")

        async def reject(request: Request) -> Response:
            # Those with the right method matched before; paths that do not exist do not come here.
            path = request.scope["path"]
            message = f"{path} does not take {request.method}. Use {allowed[path]}."
            raise RequestError(405, "method_not_allowed", message, {"Allow": allowed[path]})

        routes.append(Route("/{path:path}", reject, methods=_ALL_METHODS))
        middleware = [
            Middleware(RequestMiddleware, self.settings, self._counters, routes=frozenset(allowed), guarded=_GUARDED)
        ]
        if self.settings.cors_origins:
            cors = Middleware(
                CORSMiddleware,
                allow_origins=list(self.settings.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
            )
            middleware.insert(0, cors)
        handlers = EXCEPTION_HANDLERS | {
            ImageError: self._counted(image_error_response),
            RequestError: self._counted(request_error_response),
        }
        return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)

    def _counters(self) -> Metrics | None:
        return self.worker.metrics if self.worker else None

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(_PAGE)

    async def _docs(self, _: Request) -> Response:
        return JSONResponse(openapi_document(self.version))

    async def _metrics(self, _: Request) -> Response:
        return Response(await to_thread.run_sync(self._require_worker().metrics.text), media_type=MEDIA_TYPE)

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
                "arithmetic": runtime_precision(manifest),
                "stores_images": self.settings.keep_images,
                "keep_days": self.settings.keep_days,
            }
        )

    async def _predict(self, request: Request) -> Response:
        model = self._require_model()
        options = _options(request)
        async with self._limits() as deadline:
            content = await read_image(request, self._budget)
            with self._place():
                (result,) = await self._answer(model, [content], options, deadline)
            if isinstance(result, ImageError):
                raise result
        self._require_worker().note(result)
        return JSONResponse(result.body)

    async def _predict_batch(self, request: Request) -> Response:
        model = self._require_model()
        options = _options(request)
        async with self._limits() as deadline:
            contents = await read_images(request, self._budget)
            with self._place():
                results = await self._answer(model, contents, options, deadline)
        worker = self._require_worker()
        items = []
        for result in results:
            if isinstance(result, PredictionResult):
                worker.note(result)
                items.append(result.body)
            else:
                self._count_rejection(result.code)
                items.append(error_body(result.code, str(result)))
        return JSONResponse(items)

    async def _feedback(self, request: Request) -> Response:
        worker = self._require_worker()
        async with self._limits():
            prediction_id, emotion = read_feedback(await read_json_body(request), EMOTIONS)
        # However long the disk takes: a label that is kept must not be answered as if it were not.
        await to_thread.run_sync(worker.box.keep, prediction_id, emotion)
        worker.metrics.feedback.labels(emotion).inc()
        return JSONResponse({"prediction_id": prediction_id, "emotion": emotion, "state": "accepted"})

    async def _label_page(self, _: Request) -> Response:
        return HTMLResponse(_LABEL_PAGE)

    async def _label_requests(self, _: Request) -> Response:
        queue = self._require_queue()
        return JSONResponse(await to_thread.run_sync(queue.waiting))

    async def _label_image(self, request: Request) -> Response:
        queue = self._require_queue()
        found = await to_thread.run_sync(queue.image, request.query_params.get("prediction_id", ""))
        if found is None:
            raise RequestError(404, "no_image", "No image of this prediction is kept.")
        return Response(found[0], media_type=found[1], headers={"Cache-Control": "no-store"})

    def _require_queue(self) -> LabelQueue:
        if not self.settings.token:
            message = "The queue shows people's images, so it needs a token. Start the service with EMOTION_TOKEN."
            raise RequestError(403, "needs_token", message)
        return self._queue

    async def _answer(
        self, model: Classifier, contents: list[bytes], options: PredictOptions, deadline: float
    ) -> list[PredictionResult | ImageError]:
        worker = self._require_worker()
        answer = worker.answerer.predict
        if len(contents) == 1 and not options.detect_face:
            # A worker has one core, so the others would wait as long for a thread; handing over costs a quarter more.
            with contextlib.suppress(NeedsWorkerThreadError):
                results = answer(model, contents, options, deadline, fast_path_only=True)
                if isinstance(results[0], ImageError):
                    # A damaged one may claim to be large, and memory was taken for it.
                    worker.memory.note()
                return results
        worker.memory.note()
        # A thread, so that a large image does not hold up the others; few, because each may need much memory.
        with self._budget.body() as take:
            take(sum(map(len, contents)))
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._large, answer, model, contents, options, deadline)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Take one of the worker's places to answer, and give it back."""
        if self._num_running >= self.settings.max_concurrency:
            raise RequestError(
                429, "too_many_requests", "Too many requests at once. Try again in a second.", {"Retry-After": "1"}
            )
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1

    @contextlib.asynccontextmanager
    async def _limits(self) -> AsyncIterator[float]:
        """Keep the time limit; yield when the time is up, by `time.monotonic`."""
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                yield time.monotonic() + self.settings.timeout_seconds
        except (TimeoutError, DeadlineExceededError) as error:
            message = f"The answer took more than {self.settings.timeout_seconds:g} s. Send a smaller image."
            raise RequestError(504, "timeout", message) from error
        except ClientDisconnect as error:
            raise RequestError(400, "incomplete_body", "The connection closed before the body was complete.") from error

    def _counted(self, handler: Handler) -> Handler:
        """Count what a handler answers, by its code."""

        async def answer(request: Request, error: Exception) -> Response:
            assert isinstance(error, (ImageError, RequestError))
            self._count_rejection(error.code)
            return await handler(request, error)

        return answer

    def _count_rejection(self, code: str) -> None:
        if self.worker:
            self.worker.metrics.rejections.labels(code).inc()

    def _require_model(self) -> Classifier:
        if self.model is None:
            raise _no_model()
        return self.model

    def _require_worker(self) -> Worker:
        if self.worker is None:
            raise _no_model()
        return self.worker


def _no_model() -> RequestError:
    return RequestError(503, "no_model", "No model is ready. Try again in a few seconds.", {"Retry-After": "5"})


def _options(request: Request) -> PredictOptions:
    """Read what is asked for beside the emotion; an unknown value is rejected, because it would be skipped."""
    asked = {name: request.query_params.get(name, values[0]) for name, values in _WISHES.items()}
    for name, values in _WISHES.items():
        if asked[name] not in values:
            message = f"{name} is {asked[name][:20]!r}. Use {' or '.join(values)}."
            raise RequestError(400, "invalid_query", message)
    return PredictOptions(with_heatmap=asked["heatmap"] == "1", detect_face=asked["face"] == "find")
