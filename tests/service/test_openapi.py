"""`/docs.json` is correct: schemathesis sends valid and invalid requests, and compares the responses with it."""

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
from emotion_service.openapi import openapi_document
from tests.service.conftest import make_app

# Handled by the server around the application, which this test does not start.
SERVER_ROUTES = "/(livez|readyz)"


def check_operation(requests: SearchStrategy[schemathesis.Case], excluded: list[Any]) -> None:
    @given(case=requests)
    @settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def responds_as_documented(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=excluded)

    responds_as_documented()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_response_is_documented(bundle_dir: Path, tmp_path: Path, mode: GenerationMode) -> None:
    """Statuses, media types and bodies of all responses are documented.

    One check is excluded: a schema cannot describe an image, so random bytes are rightly rejected.
    """
    app = make_app(tmp_path, bundle_dir, max_concurrency=8)
    schema = schemathesis.openapi.from_asgi("/docs.json", app.routes()).exclude(path_regex=SERVER_ROUTES)
    num_operations = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        excluded = [positive_data_acceptance]
        if operation.path == "/predict_batch":
            # In a form, `true` is the same as a list with one text part, which is accepted but not an image.
            excluded.append(negative_data_rejection)
        if mode is GenerationMode.POSITIVE or operation.body or operation.query:
            check_operation(operation.as_strategy(generation_mode=mode), excluded)
            num_operations += 1
    app.close()

    assert num_operations >= 3


def test_the_document_lists_the_classes_of_the_loaded_model(app: EmotionApp) -> None:
    """Clients are generated from it."""
    assert app.model
    document = openapi_document(app.endpoints, "v", ["no", "yes"])

    protected = {
        path
        for path, (operation,) in ((path, tuple(each.values())) for path, each in document["paths"].items())
        if "security" in operation
    }
    assert protected == {"/predict", "/predict_batch", "/feedback", "/label_requests", "/label_image"}
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for name in ("Feedback", "Prediction"):
        assert document["components"]["schemas"][name]["properties"]["emotion"]["enum"] == ["no", "yes"]
