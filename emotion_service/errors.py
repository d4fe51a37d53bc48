"""One shape for every error, and the one place that chooses the HTTP status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emotion_assets.core.errors import (
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    UnsupportedFormatError,
)

Handler = Callable[[Request, Exception], Awaitable[Response]]

_STATUS_OF_IMAGE_ERROR = {EmptyImageError: 400, ImageTooLargeError: 413, UnsupportedFormatError: 415}


class RequestError(Exception):
    """A request cannot be answered; `status`, `code` and the message go to the client."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Keep what the answer needs."""
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


def error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """Return the body that every rejection has."""
    return {"error": {"code": code, "message": message}}


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer `{"error": {"code", "message"}}` with `status`."""
    return JSONResponse(error_body(code, message), status, headers)


async def image_error_response(_: Request, error: Exception) -> Response:
    """Answer a rejected image; damaged ones are 422."""
    assert isinstance(error, ImageError)
    return error_response(_STATUS_OF_IMAGE_ERROR.get(type(error), 422), error.code, str(error))


async def request_error_response(_: Request, error: Exception) -> Response:
    """Answer a request that is rejected for its form, its route or the service's state."""
    assert isinstance(error, RequestError)
    return error_response(error.status, error.code, str(error), error.headers)


async def http_error_response(_: Request, error: Exception) -> Response:
    """Answer what Starlette itself rejects."""
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, "http_error", error.detail, error.headers)


EXCEPTION_HANDLERS: dict[type[Exception], Handler] = {
    ImageError: image_error_response,
    RequestError: request_error_response,
    HTTPException: http_error_response,
}
