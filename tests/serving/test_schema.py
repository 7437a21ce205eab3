"""Whatever the schema allows, and whatever it does not: no route answers with an error of the server."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from diffutron.model import load_model
from diffutron.serving.app import create_app
from diffutron.serving.service import Service
from diffutron.serving.settings import ServeSettings
from diffutron.testing import tiny_folder

pytestmark = pytest.mark.slow
CASES = 1000 if os.environ.get("DIFFUTRON_SOAK") else 40


@pytest.fixture
def schema(tmp_path):
    # For each test its own: when a test is over, schemathesis ends the application's life, and the engine with it.
    folder = tiny_folder(tmp_path / "tiny")
    service = Service(ServeSettings(model="tiny", request_seconds=20), load_model(str(folder)))
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(service), headers={"host": "127.0.0.1"})
    service.engine.close()


MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES, ids=["as allowed", "as not"])
def test_no_request_is_an_error_of_the_server(schema, mode):
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.method == "get":
            continue  # there is nothing in it that could be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def check(case):
            response = case.call(headers={"host": "127.0.0.1"}, timeout=120)
            case.validate_response(response, checks=[not_a_server_error])

        check()
        seen.add(operation.path)
    assert len(seen) >= 9
