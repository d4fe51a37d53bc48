"""Middleware for every request: id, token, rate limit, access log, metrics."""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emotion_assets.core.errors import ImageError
from emotion_service.errors import RequestError, error_response
from emotion_service.metrics import Metrics
from emotion_service.settings import Settings

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_MAX_CLIENTS: Final = 10_000
_MAX_HEADERS: Final = 200
_MAX_HEADER_BYTES: Final = 32 * 1024

_logger = logging.getLogger("emotion_service.access")


class RateLimit:
    """A token bucket for each client. Each worker has its own."""

    def __init__(self, per_minute: float, now: Callable[[], float] = time.monotonic) -> None:
        """Allow `per_minute` requests per minute and client, and bursts of a tenth of that."""
        self._per_second = per_minute / 60
        self._size = max(1.0, per_minute / 10)
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def seconds_to_wait(self, client: str) -> float:
        """Take one request from the client's bucket; return 0, or the seconds until one is available."""
        now = self._now()
        left, since = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - since) * self._per_second)
        waiting = 0.0 if left >= 1 else (1 - left) / self._per_second
        # Inserted at the end, so that the first entry is the client that has been idle longest.
        self._buckets[client] = (left if waiting else left - 1, now)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.pop(next(iter(self._buckets)))
        return waiting


class RequestMiddleware:
    """ASGI middleware around the routes."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Callable[[], Metrics | None],
        routes: Mapping[str, str],
        protected: frozenset[str],
    ) -> None:
        """Wrap `app`.

        Args:
            app: the routes.
            settings: token, rate limit, access log.
            metrics: returns the metrics once the worker has them.
            routes: the allowed methods of each path; all other paths get status 404 and share one label.
            protected: the paths that need the token and are rate limited.
        """
        self._app, self._settings, self._metrics = app, settings, metrics
        self._routes, self._protected = routes, protected
        self._token = settings.token.get_secret_value().encode()
        rate = settings.rate_per_minute
        self._limit = RateLimit(rate) if rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or reject it before it reaches its route."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        metrics = self._metrics()
        if metrics:
            metrics.in_progress.inc()
        try:
            self._check(scope, headers)
            await self._app(scope, receive, send_with_id)
        except (RequestError, ImageError) as error:
            if metrics:
                metrics.errors.labels(error.code).inc()
            await error_response(error)(scope, receive, send_with_id)
        except Exception:
            # Like any error, a bug gets an id and is counted; the server logs what is raised.
            if not status:
                bug = RequestError(500, "internal_error", "The service failed on this request. See its log.")
                await error_response(bug)(scope, receive, send_with_id)
            raise
        finally:
            self._record(metrics, scope, request_id, status, time.perf_counter() - started)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raise a RequestError for a request that must not reach its route."""
        fields, path = scope["headers"], scope["path"]
        if len(fields) > _MAX_HEADERS or sum(len(name) + len(value) for name, value in fields) > _MAX_HEADER_BYTES:
            message = f"There are more than {_MAX_HEADERS} headers or {_MAX_HEADER_BYTES:,} bytes of them. Send fewer."
            raise RequestError(431, "headers_too_large", message)
        # Starlette's patterns also match a path with a final newline, which would bypass the token: compare exactly.
        allowed = self._routes.get(path)
        if not allowed:
            raise RequestError(404, "not_found", "There is no such route. GET /docs.json lists them.")
        if scope["method"] not in allowed.split(", "):
            message = f"{path} does not support {scope['method'][:20]}. Use {allowed}."
            raise RequestError(405, "method_not_allowed", message, {"Allow": allowed})
        if path not in self._protected:
            return
        if self._limit:  # before the token, so that tokens cannot be guessed without limit
            client = scope.get("client")
            waiting = self._limit.seconds_to_wait(client[0] if client else "")
            if waiting:
                message = f"The limit is {self._settings.rate_per_minute:g} requests per minute. Try again later."
                raise RequestError(429, "rate_limited", message, {"Retry-After": str(int(waiting) + 1)})
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if self._token and not (scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), self._token)):
            message = "This service needs a token. Send the header 'Authorization: Bearer <token>'."
            raise RequestError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})

    def _record(self, metrics: Metrics | None, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in self._routes else "other"
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        if metrics:
            metrics.in_progress.dec()
            metrics.requests.labels(route, method, str(status)).inc()
            metrics.seconds.labels(route).observe(seconds)
        if not self._settings.access_log:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        _logger.info(json.dumps(line))
