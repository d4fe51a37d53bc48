"""Labels that people give to predictions: one for each, whichever worker receives it.

A prediction's id carries a signature, so that an unknown id is recognized without searching the log. A label is a file
or object of its own that can only be created: of two labels for one prediction the first wins.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import secrets
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from emotion_service.errors import RequestError
from emotion_service.schemas import Feedback
from emotion_service.storage import Storage

_NUM_RANDOM_DIGITS: Final = 24
_NUM_SIGNATURE_DIGITS: Final = 16
_KEY: Final = "feedback/.key"

_logger = logging.getLogger(__name__)


class FeedbackStore:
    """Issues prediction ids, recognizes them, and stores one label for each."""

    def __init__(self, storage: Storage) -> None:
        """Store labels below `feedback/` of a data root."""
        self._storage = storage
        self._key = _load_or_create_key(storage)

    def new_id(self) -> str:
        """Return a new id of 40 hexadecimal digits."""
        name = secrets.token_hex(_NUM_RANDOM_DIGITS // 2)
        return name + self._sign(name)

    def save(self, feedback: Feedback) -> None:
        """Store the label of a prediction.

        Raises:
            RequestError: the id is unknown (404), has a label (409), or the disk cannot be written to (503).
        """
        prediction_id = feedback.prediction_id
        name, signature = prediction_id[:_NUM_RANDOM_DIGITS], prediction_id[_NUM_RANDOM_DIGITS:]
        if not prediction_id.isascii() or not hmac.compare_digest(signature, self._sign(name)):
            raise RequestError(404, "unknown_prediction", "No prediction has this id. Use one that was returned.")
        record = feedback.model_dump() | {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        try:
            self._storage.create(label_key(prediction_id), json.dumps(record, indent=2, ensure_ascii=False).encode())
        except FileExistsError as error:
            raise RequestError(409, "label_exists", "This prediction already has a label.") from error
        except OSError as error:
            message = "The label cannot be stored now. Try again later."
            raise RequestError(503, "storage_unavailable", message, {"Retry-After": "60"}) from error

    def _sign(self, name: str) -> str:
        return hmac.digest(self._key, name.encode("utf-8", "replace"), "sha256").hex()[:_NUM_SIGNATURE_DIGITS]


def label_key(prediction_id: str) -> str:
    """Return where the label of a prediction is stored."""
    return f"feedback/{prediction_id[:2]}/{prediction_id}.json"


def _load_or_create_key(storage: Storage) -> bytes:
    """Return the key that all workers share; if it cannot be stored, one that lasts as long as the process."""
    try:
        return storage.read(_KEY)
    except FileNotFoundError:
        pass
    except OSError as error:
        message = "%s cannot be read (%s), so labels for other workers' predictions are rejected. Make it readable."
        _logger.error(message, _KEY, error)  # noqa: TRY400 -- the traceback adds nothing
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileExistsError):
            storage.create(_KEY, secrets.token_bytes(32))
        return storage.read(_KEY)
    return secrets.token_bytes(32)


def parse_feedback(content: bytes, emotions: Sequence[str]) -> Feedback:
    """Parse the body of a request; `emotions` are the classes of the model.

    Raises:
        RequestError: the body is not such JSON (400), or the emotion is not a class of the model (422).
    """
    try:
        feedback = Feedback.model_validate_json(content)
    except ValidationError as error:
        message = 'The body is not valid JSON for a label. Send {"prediction_id": "…", "emotion": "…"}.'
        raise RequestError(400, "malformed_json", message) from error
    by_word = {_plain(emotion): emotion for emotion in emotions}
    emotion = by_word.get(_plain(feedback.emotion))
    if emotion is None:
        message = f"The emotion must be one of {', '.join(emotions)}."
        raise RequestError(422, "unknown_emotion", message)
    return feedback.model_copy(update={"emotion": emotion})


def _plain(emotion: str) -> str:
    """Return a class without what clients vary: case, and how an accent is written."""
    return unicodedata.normalize("NFC", emotion).strip().casefold()
