"""What happens to every request before and after its route: id, token, rate limit, one line of log, metrics."""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emotion_service.errors import error_response
from emotion_service.metrics import Metrics
from emotion_service.random_digits import RandomDigits
from emotion_service.settings import Settings

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OTHER_ROUTE: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_MAX_CLIENTS: Final = 10_000
_SECONDS_A_MINUTE: Final = 60
_MAX_HEADERS: Final = 200
_MAX_HEADER_BYTES: Final = 32 * 1024
_BUG: Final = "The service failed on this request. Its log says more."

_logger = logging.getLogger("emotion_service.access")


class RateLimit:
    """A bucket of requests for each client, refilled steadily (token bucket). Each worker has its own."""

    def __init__(self, per_minute: float, now: Callable[[], float] = time.monotonic) -> None:
        """Allow `per_minute` requests a minute and client, and bursts of a tenth of that."""
        self._per_second = per_minute / _SECONDS_A_MINUTE
        self._size = max(1.0, per_minute / 10)
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def seconds_to_wait(self, client: str) -> float:
        """Take one request from the client's bucket; return 0, or after how many seconds there is one again."""
        now = self._now()
        left, since = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - since) * self._per_second)
        waiting = 0.0 if left >= 1 else (1 - left) / self._per_second
        # Put back at the end: the dictionary's first entry is the client that was away the longest.
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
        routes: frozenset[str],
        guarded: frozenset[str],
    ) -> None:
        """Wrap `app`.

        Args:
            app: the routes.
            settings: token, rate limit, whether to log.
            metrics: returns the counters once the worker has them.
            routes: the paths that exist; all others are answered 404, and are one label.
            guarded: the paths that need the token and count against the rate limit.
        """
        self._app, self._settings, self._metrics = app, settings, metrics
        self._routes, self._guarded = routes, guarded
        self._digits = RandomDigits()
        rate = settings.rate_per_minute
        self._limit = RateLimit(rate / settings.num_workers) if rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or reject it before its route is reached."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else self._digits.take(16)
        path: str = scope["path"]
        route = path if path in self._routes else _OTHER_ROUTE
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
            await (_oversized(scope) or self._rejection(scope, headers) or self._app)(scope, receive, send_with_id)
        except Exception:
            # Answered here, so that a bug has an id and a count like any answer; the server logs what is raised.
            if not status:
                await error_response(500, "internal_error", _BUG)(scope, receive, send_with_id)
            raise
        finally:
            seconds = time.perf_counter() - started
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            if metrics:
                metrics.in_progress.dec()
                metrics.requests.labels(route, method, str(status)).inc()
                metrics.seconds.labels(route).observe(seconds)
            if self._settings.has_access_log:
                self._write_line(request_id, route, method, status, seconds)

    def _rejection(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        # Routes are patterns, and a pattern's end also matches before a last newline: what is not exactly a route
        # must not reach one, or it would pass by its guard.
        if scope["path"] not in self._routes:
            return error_response(404, "not_found", "There is no such route. GET /docs.json lists them.")
        if scope["path"] not in self._guarded:
            return None
        # First of all, so that nobody tries tokens without end.
        if self._limit:
            client = scope.get("client")
            waiting = self._limit.seconds_to_wait(client[0] if client else "")
            if waiting:
                message = f"More than {self._settings.rate_per_minute:g} requests a minute. Try again later."
                return error_response(429, "rate_limited", message, {"Retry-After": str(int(waiting) + 1)})
        token = self._settings.token
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if token and not (scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode())):
            message = "This service needs a token. Send the header 'Authorization: Bearer <token>'."
            return error_response(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
        return None

    @staticmethod
    def _write_line(request_id: str, route: str, method: str, status: int, seconds: float) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        _logger.info(json.dumps(line))


def _oversized(scope: Scope) -> ASGIApp | None:
    """Reject a head that no client needs; the server's own parser sets no limit on it."""
    fields = scope["headers"]
    if len(fields) <= _MAX_HEADERS and sum(len(name) + len(value) for name, value in fields) <= _MAX_HEADER_BYTES:
        return None
    message = f"The request's head is over {_MAX_HEADERS} fields or {_MAX_HEADER_BYTES:,} bytes. Send fewer headers."
    return error_response(431, "headers_too_large", message)
