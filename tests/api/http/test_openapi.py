"""The OpenAPI document is correct: a generated client works with the app."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.openapi_document import PAGE, openapi_text
from api.settings import Settings
from domain.errors import Invalid
from domain.names import checked_token_prefix, checked_workspace
from domain.scopes import checked
from tests.api.checkpoints import sign_a_checkpoint
from tests.api.served import KEY_FIELDS, Api, Json

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CREDENTIALS = {"authorization", "x-api-key"}
VERBS = (
    "authorize",
    "create",
    "get",
    "introspect",
    "list",
    "rebuild",
    "revoke",
    "rotate",
    "update",
    "verify",
)
DOCUMENT: Json = create_app(Settings()).openapi()
OPERATIONS = [
    (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
]
for_every_operation = pytest.mark.parametrize(
    ("method", "path"), OPERATIONS, ids=[" ".join(each) for each in OPERATIONS]
)


def operation(method: str, path: str) -> Json:
    found: Json = DOCUMENT["paths"][path][method.lower()]
    return found


def parameter(method: str, path: str, name: str) -> Json:
    """Return the schema of a parameter."""
    found: list[Json] = [
        each["schema"] for each in operation(method, path)["parameters"] if each["name"] == name
    ]
    return found[0]


def schemas() -> dict[str, Json]:
    found: dict[str, Json] = DOCUMENT["components"]["schemas"]
    return found


def everything_in(part: Any) -> Iterator[Json]:  # noqa: ANN401 - any JSON
    """Yield every object of a document."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from everything_in(value)
    if isinstance(part, list):
        for value in part:
            yield from everything_in(value)


class TestTheDocument:
    def test_it_says_what_it_is(self) -> None:
        assert DOCUMENT["openapi"].startswith("3.1.")
        assert set(DOCUMENT["info"]) == {"title", "version", "description"}

    def test_every_reference_resolves(self) -> None:
        references = [each["$ref"] for each in everything_in(DOCUMENT) if "$ref" in each]
        assert len(references) > 20
        for reference in references:
            prefix, _, name = reference.rpartition("/")
            assert prefix == "#/components/schemas"
            assert name in schemas()

    def test_every_schema_is_valid_and_used(self) -> None:
        used = {
            each["$ref"].rpartition("/")[2] for each in everything_in(DOCUMENT) if "$ref" in each
        }
        assert set(schemas()) == used
        for schema in schemas().values():
            jsonschema_rs.meta.validate(
                schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
            )

    def test_every_example_fits_its_schema(self) -> None:
        examples = 0
        for part in everything_in(DOCUMENT):
            for example in part.get("examples", ()):
                validator = jsonschema_rs.validator_for(
                    part | {"components": DOCUMENT["components"]}
                )
                assert validator.is_valid(example), (part, example)
                examples += 1
        assert examples > 30

    def test_the_file_in_docs_is_current(self) -> None:
        assert PAGE.read_text() == openapi_text(), "run `make docs`"

    def test_every_operation_id_is_unique(self) -> None:
        ids = [operation(*each)["operationId"] for each in OPERATIONS]
        assert len(set(ids)) == len(ids)

    def test_every_field_is_described(self) -> None:
        missing = [
            f"{name}.{field}"
            for name, schema in schemas().items()
            for field, described in schema.get("properties", {}).items()
            if not described.get("description")
        ]
        assert missing == []

    def test_both_ways_to_present_a_token_are_described(self) -> None:
        schemes = DOCUMENT["components"]["securitySchemes"]
        assert schemes["Bearer"]["scheme"] == "bearer"
        assert (schemes["X-API-Key"]["in"], schemes["X-API-Key"]["name"]) == ("header", "X-API-Key")

    def test_the_key_of_an_answer_has_all_its_fields(self) -> None:
        key = schemas()["KeyAnswer"]
        assert list(key["properties"]) == KEY_FIELDS == key["required"]

    @pytest.mark.parametrize(
        ("schema", "check"),
        [
            (schemas()["CreateKey"]["properties"]["scopes"]["items"], lambda text: checked([text])),
            (schemas()["CreateKey"]["properties"]["prefix"]["anyOf"][0], checked_token_prefix),
            (parameter("POST", "/v1/keys", "workspace")["anyOf"][0], checked_workspace),
        ],
        ids=["scope", "prefix", "workspace"],
    )
    def test_patterns_say_what_the_domain_checks(self, schema: Json, check: Any) -> None:  # noqa: ANN401
        @settings(max_examples=100, deadline=None)
        @given(
            st.one_of(
                st.text(alphabet="aZ09:*._-", min_size=1, max_size=6),
                st.from_regex(schema["pattern"], fullmatch=True),
            )
        )
        def hold(text: str) -> None:
            try:
                check(text)
            except Invalid:
                fits = False
            else:
                fits = True
            matches = re.search(schema["pattern"], text) is not None and text[-1:] != "\n"
            assert fits == (matches and len(text) <= schema["maxLength"])

        hold()


@for_every_operation
class TestEveryOperation:
    def test_its_id_has_the_form_verb_noun(self, method: str, path: str) -> None:
        assert re.fullmatch(
            rf"({'|'.join(VERBS)})(_[a-z]+)+", operation(method, path)["operationId"]
        )

    def test_it_has_one_tag_a_short_summary_and_a_description(self, method: str, path: str) -> None:
        described = operation(method, path)
        assert re.fullmatch(r"[A-Z].{1,58}[^.]", described["summary"])
        assert described["description"]
        assert len(described["tags"]) == 1

    def test_every_parameter_is_described(self, method: str, path: str) -> None:
        for parameter in operation(method, path).get("parameters", ()):
            assert parameter["description"], parameter["name"]

    def test_every_request_schema_has_examples(self, method: str, path: str) -> None:
        described = operation(method, path)
        for parameter in described.get("parameters", ()):
            if parameter["in"] == "path":
                assert parameter["schema"]["examples"], parameter["name"]
                assert parameter["description"]
        for content in described.get("requestBody", {}).get("content", {}).values():
            schema = content["schema"]
            if "$ref" in schema:
                schema = schemas()[schema["$ref"].rpartition("/")[2]]
            for name in schema.get("required", ()):
                assert any(
                    each.get("examples")
                    for each in everything_in(resolve(schema["properties"][name]))
                ), name

    def test_its_errors_are_problems_and_all_that_it_can_have(self, method: str, path: str) -> None:
        described = operation(method, path)
        responses = described["responses"]
        for status, response in responses.items():
            assert response["description"]
            if status >= "400":
                content = response["content"]["application/problem+json"]
                assert content["schema"]["$ref"].endswith("/ProblemAnswer")
        expected: set[str] = set()
        if described.get("security"):
            expected |= {"401", "403", "503"}
        if "requestBody" in described:
            expected |= {"413", "422"}
        if "{key_id}" in path:
            expected |= {"404", "422"}
        names = {each["name"] for each in described.get("parameters", ())}
        if "If-Match" in names:
            expected |= {"409", "412"}
        assert expected <= set(responses)
        if "401" in responses:
            assert "WWW-Authenticate" in responses["401"]["headers"]
        if "503" in responses:
            assert "Retry-After" in responses["503"]["headers"]

    def test_it_has_one_good_answer(self, method: str, path: str) -> None:
        good = [status for status in operation(method, path)["responses"] if status < "400"]
        assert len(good) == 1


def resolve(schema: Json) -> Json:
    """Return a schema with its references resolved, one level deep."""
    return {
        "schema": schema,
        "items": [
            schemas()[each["$ref"].rpartition("/")[2]]
            for each in everything_in(schema)
            if "$ref" in each
        ],
    }


@for_every_operation
class TestAnswers:
    """Requests generated from the document, valid and invalid ones."""

    def hold(
        self, api: Api, method: str, path: str, mode: GenerationMode, *, known: bool
    ) -> set[int]:
        """Send about twenty requests, check each answer, and return the statuses."""
        described = schemathesis.openapi.from_asgi("/openapi.json", api.app)[path][method]
        sign_a_checkpoint(api)
        bearer = {"Authorization": f"Bearer {api.root.token}"}
        statuses = set()

        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(described.as_strategy(generation_mode=mode))
        def hold(case: schemathesis.Case[Any]) -> None:
            for name in [name for name in case.headers if name.lower() in CREDENTIALS]:
                # Root's credential plus a second one would always be refused.
                del case.headers[name]
            if known:
                aim(case, api)
            answer = case.call(headers=bearer)
            case.validate_response(answer, checks=CHECKS)
            statuses.add(answer.status_code)

        hold()
        return statuses

    def test_to_what_the_document_allows(self, shared_api: Api, method: str, path: str) -> None:
        statuses = self.hold(shared_api, method, path, GenerationMode.POSITIVE, known=True)
        good = [each for each in operation(method, path)["responses"] if each < "400"]
        assert {int(each) for each in good} & statuses

    def test_to_requests_without_a_match(self, shared_api: Api, method: str, path: str) -> None:
        self.hold(shared_api, method, path, GenerationMode.POSITIVE, known=False)

    def test_to_what_it_does_not_allow(self, shared_api: Api, method: str, path: str) -> None:
        try:
            self.hold(shared_api, method, path, GenerationMode.NEGATIVE, known=False)
        except Unsatisfiable:
            assert operation(method, path).get("parameters") is None


def aim(case: schemathesis.Case[Any], api: Api) -> None:
    """Point a generated request at existing objects, which random values would never hit."""
    if "key_id" in case.path_parameters:
        case.path_parameters["key_id"] = api.make(workspace="default").key_id
        case.query.pop("workspace", None)
        case.headers.pop("If-Match", None)
        case.headers.pop("Idempotency-Key", None)
    if "name" in case.path_parameters:
        case.path_parameters["name"] = "key_list"
    if "tile" in case.path_parameters:
        case.path_parameters["tile"] = "0/000.p/1"
    if case.path.startswith("/v1/proofs/"):
        case.query = {"leaf_index": 0} if case.path.endswith("inclusion") else {"from": 1}
    for parameter in ("cursor", "as_of", "after"):
        case.query.pop(parameter, None)
    case.query.pop("scope", None)
