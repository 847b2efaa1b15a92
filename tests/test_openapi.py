"""The OpenAPI document is valid, its examples are true to their schemas, and it is made from what serves."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import attrs
import jsonschema
import pytest
import schemathesis

from chatwoot_relay.models import MAX_ID, Alert
from chatwoot_relay.openapi import ROUTES, TAG, openapi


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": openapi()["components"]})


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                for kind, content in answer["content"].items():
                    yield f"{method} {path} {status} {kind}", content
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{method} {path} body {kind}", content


def test_it_is_valid_openapi_3_1() -> None:
    """Generators of clients refuse a document with a fault in it."""
    document = copy.deepcopy(openapi())
    assert document["openapi"].startswith("3.1.")
    assert json.loads(json.dumps(document)) == document
    schemathesis.openapi.from_dict(document).validate()
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in contents()])
def test_examples_are_true_to_their_schemas(content: dict[str, Any]) -> None:
    """People copy the examples; one that is refused teaches them nothing."""
    for example in content.get("examples", {}).values():
        validator(content["schema"]).validate(example["value"])


def test_every_route_stands_under_the_promised_tag() -> None:
    """The contract names it, and both viewers group by it."""
    operations = [operation for path in openapi()["paths"].values() for operation in path.values()]
    assert len(operations) == len(ROUTES)
    assert {tuple(operation["tags"]) for operation in operations} == {(TAG,)}
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)


def test_every_answer_names_its_request() -> None:
    """X-Request-ID is what an operator asks for first."""
    for path in openapi()["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                assert "X-Request-ID" in answer["headers"]


def test_what_an_answer_may_carry_is_told() -> None:
    """A client reads its rate limit off every answer that counted, and may sign what it posts to either route."""
    alerts = openapi()["paths"]["/api/v1/chatwoot/alerts"]["post"]
    for status in ("200", "202", "502"):
        assert {"X-Delivery-ID", "RateLimit", "RateLimit-Policy"} <= set(alerts["responses"][status]["headers"])
    for operation in (alerts, openapi()["paths"]["/api/v1/chatwoot/webhook"]["post"]):
        assert {"signature": []} in operation["security"]
        assert "X-Chatwoot-Timestamp" in [parameter["name"] for parameter in operation["parameters"]]


def test_the_alert_is_made_from_the_class_that_the_door_fills() -> None:
    """Nothing is told that is not read, and our own field is not offered."""
    schema = openapi()["components"]["schemas"]["Alert"]
    fields = {field.name: field for field in attrs.fields(Alert) if "Meta(" in str(field.type)}
    assert list(schema["properties"]) == list(fields)
    assert schema["required"] == [name for name, field in fields.items() if field.default is attrs.NOTHING]


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"conversation_id": "12345"}, True),
        ({"conversation_id": MAX_ID}, True),
        ({"conversation_id": 0}, False),
        ({"conversation_id": MAX_ID + 1}, False),
        ({"conversation_id": "0"}, False),
        ({"conversation_id": "12a"}, False),
        ({"conversation_id": 1.5}, False),
        ({"conversation_id": None}, False),
        ({"message": " \n"}, False),
        ({"customer_name": None, "additional_info": None, "chatwoot_url": None}, True),
        ({"additional_info": {"a": [1, {"b": None}]}}, True),
        ({"additional_info": []}, False),
        ({"something": "else"}, True),
    ],
)
def test_the_alert_schema_takes_what_the_contract_takes(change: dict[str, Any], right: bool) -> None:
    """Clients check against it before they post."""
    schema = openapi()["components"]["schemas"]["Alert"]
    example = openapi()["paths"]["/api/v1/chatwoot/alerts"]["post"]["requestBody"]["content"]["application/json"]
    alert = {**example["examples"]["alert"]["value"], **change}
    assert validator(schema).is_valid(alert) is right
