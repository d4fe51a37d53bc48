"""Errors of requests, and the one body that all of them have."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from emotion_assets.core.errors import EmptyImageError, ImageError, ImageTooLargeError, UnsupportedFormatError
from emotion_service.schemas import ErrorDetail, ErrorResponse

_IMAGE_ERROR_STATUSES = {EmptyImageError: 400, ImageTooLargeError: 413, UnsupportedFormatError: 415}


class RequestError(Exception):
    """A request is rejected; `status`, `code`, the message and `headers` go to the client."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


def error_body(error: RequestError | ImageError) -> ErrorResponse:
    """Return the body that every error has."""
    return ErrorResponse(error=ErrorDetail(code=error.code, message=str(error)))


def error_response(error: RequestError | ImageError) -> Response:
    """Return the HTTP response for an error; an image that is damaged or too small has status 422."""
    if isinstance(error, RequestError):
        status, headers = error.status, error.headers
    else:
        status, headers = _IMAGE_ERROR_STATUSES.get(type(error), 422), None
    return Response(error_body(error).model_dump_json(), status, headers, media_type="application/json")
