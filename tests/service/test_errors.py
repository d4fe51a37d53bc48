from __future__ import annotations

import json

import pytest

from emotion_assets.core.errors import EmptyImageError, ImageTooLargeError, UnreadableImageError, UnsupportedFormatError
from emotion_service.errors import RequestError, error_response
from emotion_service.face_detection import NoFaceError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EmptyImageError("no bytes"), 400),
        (ImageTooLargeError("too large"), 413),
        (UnsupportedFormatError("a PDF"), 415),
        (UnreadableImageError("truncated"), 422),
        (NoFaceError("no face"), 422),
        (RequestError(429, "rate_limited", "too many", {"Retry-After": "3"}), 429),
    ],
)
def test_every_error_has_its_status_and_the_same_body(error: RequestError, status: int) -> None:
    response = error_response(error)

    assert response.status_code == status
    assert json.loads(bytes(response.body)) == {"error": {"code": error.code, "message": str(error)}}
    assert response.headers.get("Retry-After") == ("3" if status == 429 else None)
