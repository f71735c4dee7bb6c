"""The REST API against its own schema, by schemathesis: whatever is sent, well formed or not, gets an answer that the schema documents, and no 5xx.

A fixed number of examples a route, derived from a fixed seed: a failure comes again.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from tests.support.gateway import Gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

EXAMPLES = 8
"""Of each route and mode: some 450 requests."""
SEED = 20_201
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def test_every_answer_is_documented(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(anonymous=True)
    credential = json.loads((gateway.data / "admin.json").read_text())
    auth, url = (credential["accessKeyId"], credential["accessKeySecret"]), f"http://{gateway.http}"
    session = requests.Session()
    session.trust_env = False
    session.auth = auth
    schema = schemathesis.openapi.from_dict(session.get(url + "/openapi.json", timeout=10).json())
    statuses = set[int]()

    for operation in (found.ok() for found in schema.get_all_operations()):
        for mode in MODES:
            strategy = operation.as_strategy(generation_mode=mode)

            @seed(SEED)
            @settings(max_examples=EXAMPLES, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
            @given(case=strategy)
            def send(case: schemathesis.Case) -> None:
                response = case.call(base_url=url, session=session)
                statuses.add(response.status_code)
                case.validate_response(response, checks=CHECKS)

            try:
                send()
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, operation.label  # nothing about it can be wrong
    assert {200, 201, 400, 404} <= statuses
    assert session.get(url + "/readyz", timeout=10).status_code == 200
