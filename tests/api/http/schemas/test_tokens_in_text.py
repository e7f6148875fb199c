"""A token in any text of a request is refused or replaced, and is never stored or sent back.

The fields come from the application's own document and the console's query models, so that no new
field is missed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from httpx2 import Response
from pydantic import BaseModel, ValidationError

from api.app import create_app
from api.console.feed_queries import FeedQuery
from api.console.key_queries import KeyQuery
from api.http.schemas.free_text import HOLDS_TOKEN
from api.http.schemas.requests import Body, Query
from api.settings import Settings
from domain.names import LEAVE_IT_OUT
from domain.tokens import mint
from tests.api.served import Api, Json, invalid, refused
from tests.domain.builders import a_random_source
from tests.domain.tokens_in_text import WAYS, Way

pytestmark = pytest.mark.only_on("sqlite")

TOKEN = mint("key", a_random_source(4711)).reveal()
DOCUMENT: Json = create_app(Settings()).openapi()
FOR_A_TOKEN = {"token", "client_secret"}
"""Names of fields that are meant for a token."""
ANSWERED_WITHOUT_BEING_KEPT = {
    "header If-Match": 412,
    "body token_type_hint": 200,
    "body client_id": 200,
    "GET /v1/forward-auth query scope": 403,
}
"""Texts that are only compared or not read, with the status of an answer to a token in them."""


@dataclass(frozen=True)
class Field:
    """A text field of a request."""

    method: str
    path: str
    place: str
    name: str

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.place} {self.name}"


def resolved(schema: Json) -> Json:
    """Resolve references and alternatives of a schema; take the first alternative."""
    schema = schema.get("anyOf", [schema])[0]
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def text_schemas(schema: Json) -> Iterator[Json]:
    """Yield the schema of each text in a value, except those of nested models."""
    for each in schema.get("anyOf", []):
        yield from text_schemas(each)
    if schema.get("type") == "string":
        yield schema
    if schema.get("type") == "array":
        yield from text_schemas(schema["items"])


def fields() -> Iterator[Field]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            for each in operation.get("parameters", []):
                if any(text_schemas(each["schema"])):
                    yield Field(method.upper(), path, each["in"], each["name"])
            content = operation.get("requestBody", {}).get("content", {})
            for each in content.values():
                for field, schema in resolved(each["schema"])["properties"].items():
                    if any(text_schemas(schema)) and field not in FOR_A_TOKEN:
                        yield Field(method.upper(), path, "body", field)


def models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from models_below(each)


FIELDS = [each for each in fields() if each.place != "path"]


def sent(api: Api, field: Field, text: str) -> Response:
    """Send a request that is valid except for one field."""
    key = api.make("mcp:read")
    path = field.path.format(key_id=key.key_id, name="key_list", tile="0/000")
    form = "introspect" in path
    complete: Json = {"from": 0} if path == "/v1/proofs/consistency" else {}
    headers = {"Accept": "text/event-stream"} if field.name == "last-event-id" else {}
    body: Json | None = None
    if field.method in {"POST", "PATCH"}:
        body = {"scopes": ["mcp:read"]} if path == "/v1/keys" else {}
        body |= {"name": "n"} if path == "/v1/keys" else {}
        body |= {"token": key.token} if path in {"/v1/verify", "/v1/introspect"} else {}
        body |= {"tokens": [{"token": key.token}]} if path == "/v1/verify/batch" else {}
    match field.place:
        case "query":
            complete |= {field.name: text}
        case "header":
            headers |= {field.name: text}
        case "body":
            body = (body or {}) | {field.name: [text] if "scopes" in field.name else text}
    more: Json = {("data" if form else "json"): body} if body is not None else {}
    return api.send(field.method, path, params=complete, headers=headers, **more)


def test_the_fields_are_those_that_people_fill_in() -> None:
    names = {each.name for each in FIELDS}
    assert names >= {
        *("name", "reason", "comment", "q", "scope", "scopes", "workspace", "prefix", "created_by"),
        *("actor", "cursor", "key_id", "type", "Idempotency-Key", "If-Match", "last-event-id"),
    }
    assert len(FIELDS) > 40


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_a_token_in_a_field_is_refused_and_not_sent_back(
    shared_api: Api, field: Field, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = sent(shared_api, field, f"see {TOKEN}" if field.place != "header" else TOKEN)

    expected = [
        status for name, status in ANSWERED_WITHOUT_BEING_KEPT.items() if str(field).endswith(name)
    ]
    assert answer.status_code == (expected or [422])[0], answer.text
    if not expected:
        assert answer.json()["errors"][0]["field"].lower().startswith(field.name.lower())
    assert TOKEN[-40:] not in answer.text + str(answer.headers)
    assert TOKEN[-40:] not in "".join(capfd.readouterr())


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_token_in_any_encoding_is_refused(shared_api: Api, way: Way) -> None:
    written = way(TOKEN)
    refusal = invalid(
        shared_api.post("/v1/keys", json={"name": "n", "scopes": ["a:b"], "comment": written}),
        "comment",
    )
    assert written not in str(refusal)


MODELS = sorted({*models_below(Body), *models_below(Query), KeyQuery, FeedQuery}, key=str)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_text_of_every_model_is_searched_for_a_token(model: type[BaseModel]) -> None:
    """Includes models of no documented route, such as the console's."""
    for name, field in model.model_fields.items():
        for value in (TOKEN, [TOKEN]):
            if HOLDS_TOKEN in field.metadata:
                continue
            with pytest.raises(ValidationError) as refusal:
                model.model_validate({field.alias or name: value})
            messages = {
                str(each["msg"])
                for each in refusal.value.errors()
                if each["loc"] == (field.alias or name,)
            }
            assert messages == {f"Value error, {LEAVE_IT_OUT}"}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_request_id_with_a_token_is_replaced(shared_api: Api, way: Way) -> None:
    written = way(TOKEN)
    if not written.isascii():
        written = quote(written)
    answer = shared_api.get("/v1/keys", headers={"X-Request-Id": written})

    assert answer.headers["X-Request-Id"].startswith("req_")


@pytest.mark.parametrize(
    "kept", ["req-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]
)
def test_a_request_id_without_one_is_kept(shared_api: Api, kept: str) -> None:
    answer = shared_api.get("/v1/keys", headers={"X-Request-Id": kept})

    assert answer.headers["X-Request-Id"] == kept


def test_a_query_that_is_far_too_long_is_refused_without_being_searched(shared_api: Api) -> None:
    refused(shared_api.get("/v1/keys", params={"q": "a" * 50_000}), 414, "TARGET_TOO_LONG")
