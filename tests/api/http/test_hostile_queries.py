"""Any query string is answered with what is wrong in it, and causes no failure."""

from typing import Any

import pytest

from tests.api.served import Api

VALUES = [
    "%00", "a%00b", "%ED%A0%80", "%FF", "9223372036854775807", "9223372036854775808", "-1",
    "99999999999999999999999", "1e999", "NaN", "'; DROP TABLE events; --", "%25_%5C", "a" * 5000,
    "2026-03-03T12:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
    "apikey_00000000-0000-8000-8000-000000000000", "%F0%9F%94%91", "true", "",
]  # fmt: skip
PATHS = [
    "/v1/keys/%00", "/v1/keys/apikey_%00/events", f"/v1/keys/{'a' * 5000}",
    "/v1/log/tile/entries/99999999999999999999", "/v1/log/tile/0/x999/x999/x999/x999/x999/999",
    "/v1/log/tile/0/%00", "/v1/projections/%00/rebuild",
]  # fmt: skip
UNKNOWN = "apikey_00000000-0000-8000-8000-000000000000"


def asked_in_addresses(api: Api) -> list[tuple[str, str]]:
    """Return all parameters of the application's document, with their paths."""
    document: dict[str, Any] = api.get("/openapi.json").json()
    return [
        (path.replace("{key_id}", UNKNOWN).replace("{tile}", "0/000"), parameter["name"])
        for path, methods in document["paths"].items()
        for parameter in methods.get("get", {}).get("parameters", [])
        if parameter["in"] == "query"
    ]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:24] or "empty")
def test_no_value_of_any_parameter_makes_the_ledger_fail(shared_api: Api, value: str) -> None:
    asked = asked_in_addresses(shared_api)
    assert len(asked) > 20
    failed = {
        (path, name): answer.text
        for path, name in asked
        if (answer := shared_api.get(f"{path}?{name}={value}")).status_code >= 500
    }
    assert failed == {}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_no_path_makes_the_ledger_fail(shared_api: Api, path: str) -> None:
    for method in ("GET", "POST", "PATCH"):
        assert 400 <= shared_api.send(method, path).status_code < 500
