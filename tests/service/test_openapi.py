"""`/docs.json` is true: schemathesis sends what it allows and forbids, and compares every answer with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from emotion_service.app import EmotionApp
from emotion_service.settings import Settings

# Answered by the server around the application, which is not there in this test.
SERVER_ROUTES = "/(livez|readyz)"


def hold_to_the_document(requests: SearchStrategy[schemathesis.Case], excluded: list[Any]) -> None:
    @given(case=requests)
    @settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def answers_as_documented(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=excluded)

    answers_as_documented()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_documented(bundle_dir: Path, tmp_path: Path, mode: GenerationMode) -> None:
    """Statuses, media types and bodies of all answers are those that the document promises.

    One check is left out: a schema cannot say what is an image, so random bytes are rightly rejected.
    """
    app = EmotionApp(Settings(tmp_path, num_workers=1, max_concurrency=8, timeout_seconds=20))
    app.load(bundle_dir)
    schema = schemathesis.openapi.from_asgi("/docs.json", app.routes()).exclude(path_regex=SERVER_ROUTES)
    num_operations = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        excluded = [positive_data_acceptance]
        if operation.path == "/predict_batch":
            # In a form, `true` is the same as a list of one part that says so: it is answered, as no image.
            excluded.append(negative_data_rejection)
        if mode is GenerationMode.POSITIVE or operation.body or operation.query:
            hold_to_the_document(operation.as_strategy(generation_mode=mode), excluded)
            num_operations += 1
    app.close()

    assert num_operations >= 3
