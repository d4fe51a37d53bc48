"""Labels that people give to answered images: one for each prediction, whichever worker is asked.

A prediction's id carries a signature, so an id that was never given is recognized without searching the log.
A label is a file of its own that appears whole or not at all; the second one for a prediction finds the first.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from emotion_assets.core.files import sync_folder, write_json
from emotion_service.errors import RequestError
from emotion_service.random_digits import RandomDigits

_NUM_RANDOM_DIGITS: Final = 24
_NUM_SIGNED_DIGITS: Final = 16
_KEY_NAME: Final = ".key"

_logger = logging.getLogger("emotion_service.feedback")


class FeedbackStore:
    """Gives ids, knows its own again, and keeps one label for each."""

    def __init__(self, feedback_dir: Path) -> None:
        """Use `feedback_dir`; it is made when the first label comes."""
        self._dir = feedback_dir
        self._secret = _load_or_create_key(feedback_dir)
        self._digits = RandomDigits()

    def new_id(self) -> str:
        """Return a fresh id of 40 hexadecimal digits."""
        name = self._digits.take(_NUM_RANDOM_DIGITS)
        return name + self._signature(name)

    def keep(self, prediction_id: str, emotion: str) -> None:
        """Keep the label of a prediction.

        Raises:
            RequestError: the id is none of ours (404), it has a label already (409), or the disk rejects (503).
        """
        name, signature = prediction_id[:_NUM_RANDOM_DIGITS], prediction_id[_NUM_RANDOM_DIGITS:]
        if not prediction_id.isascii() or not hmac.compare_digest(signature, self._signature(name)):
            raise RequestError(
                404, "unknown_prediction", "There is no prediction with this id. Use one from an answer."
            )
        path = self._dir / prediction_id[:2] / f"{prediction_id}.json"
        record = {
            "prediction_id": prediction_id,
            "emotion": emotion,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        temporary = path.with_name(f".{prediction_id}.{secrets.token_hex(4)}.tmp")
        try:
            write_json(temporary, record)
            # A link fails where the name is taken: exactly one label wins, also between workers.
            os.link(temporary, path)
            with contextlib.suppress(OSError):
                sync_folder(path.parent)  # it is kept; whether a power cut can still take it back is another matter
        except FileExistsError as error:
            raise RequestError(409, "label_exists", "This prediction has a label already.") from error
        except OSError as error:
            raise RequestError(
                503, "not_kept", "The label cannot be kept now. Try again later.", {"Retry-After": "60"}
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _signature(self, name: str) -> str:
        return hmac.digest(self._secret, name.encode("utf-8", "replace"), "sha256").hex()[:_NUM_SIGNED_DIGITS]


def _load_or_create_key(feedback_dir: Path) -> bytes:
    """Return the key that all workers share; where none can be kept, a key that lasts as long as the process."""
    path = feedback_dir / _KEY_NAME
    with contextlib.suppress(FileNotFoundError):
        try:
            return path.read_bytes()
        except PermissionError:
            message = "%s belongs to somebody else, so labels for other workers' answers are rejected; let me read it"
            _logger.error(message, path)  # noqa: TRY400 -- where it happened says nothing
    with contextlib.suppress(OSError):
        feedback_dir.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_KEY_NAME}.{secrets.token_hex(4)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(32))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
        return path.read_bytes()
    return secrets.token_bytes(32)


def read_feedback(content: bytes, emotions: tuple[str, ...]) -> tuple[str, str]:
    """Return prediction id and emotion of a request's body.

    Raises:
        RequestError: the body is no such JSON (400), or names no emotion that we know (422).
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "malformed_json", "The body is not a JSON. Send prediction_id and emotion.") from error
    if not isinstance(record, dict) or not all(
        isinstance(record.get(key), str) for key in ("prediction_id", "emotion")
    ):
        raise RequestError(400, "malformed_json", 'Send {"prediction_id": "…", "emotion": "…"}.')
    emotion = record["emotion"].strip().casefold()
    if emotion not in emotions:
        raise RequestError(422, "unknown_emotion", f"The emotion must be one of {', '.join(emotions)}.")
    return record["prediction_id"], emotion
