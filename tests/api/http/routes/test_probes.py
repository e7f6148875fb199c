"""``/healthz``, ``/readyz``, ``/metrics`` and ``/docs`` need no credential and show no secret."""

import re
from pathlib import Path

import pytest

from api.jobs.integrity_check import check_ledger
from projections.views.registry import VIEWS
from projections.views.view import View
from tests.api.served import Api, refused
from tests.raw_sql import raw
from tests.system.processes import eventually

pytestmark = pytest.mark.only_on("sqlite")

ROOT = Path(__file__).parents[4]
ROLES = {"keyledger_owner", "keyledger_server"}
"""PostgreSQL roles, whose names look like names of metrics."""


class TestHealth:
    def test_the_process_answers(self, api: Api) -> None:
        answer = api.get("/healthz", by=None)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})

    def test_a_bad_credential_does_not_matter(self, api: Api) -> None:
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert api.get(path, by="nonsense").status_code == 200, path


class TestReadiness:
    def test_it_reports_positions_and_sizes(self, api: Api) -> None:
        api.make()
        answer = api.get("/readyz", by=None)
        assert answer.status_code == 200
        assert answer.json() == {
            "status": "ready",
            "position": 2,
            "behind": [],
            "changes_refused": False,
            "attestation": None,
        }

    def test_a_projection_that_lags_makes_it_not_ready(self, api: Api) -> None:
        api.make()
        with raw(api.address) as connection:
            connection.execute(
                "UPDATE projection_states SET position = 1 WHERE table_name = 'key_list'"
            )
        answer = api.get("/readyz", by=None)
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "behind",
            "position": 2,
            "behind": ["key_list"],
            "changes_refused": False,
            "attestation": None,
        }
        assert api.metrics()['keyledger_projection_lag{projection="key_list"}'] == 1

    @pytest.mark.parametrize("step", [-1, 1])
    @pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
    def test_it_says_that_changes_are_refused_while_a_view_is_at_another_version(
        self, api: Api, view: View, step: int
    ) -> None:
        with raw(api.address) as connection:
            connection.execute(
                f"UPDATE projection_states SET view_version = view_version + {step}"  # noqa: S608 - from here
                f" WHERE table_name = '{view.name}'"
            )
        refused(
            api.post("/v1/keys", json={"name": "x", "scopes": ["a:b"]}), 503, "LEDGER_UNAVAILABLE"
        )
        answer = api.get("/readyz", by=None)
        assert (answer.status_code, answer.json()["changes_refused"]) == (200, True)


class TestMetrics:
    def test_they_are_in_the_format_of_prometheus(self, api: Api) -> None:
        answer = api.get("/metrics", by=None)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert "# HELP keyledger_position " in answer.text
        assert "# TYPE keyledger_append_seconds histogram" in answer.text

    def test_each_metric_that_the_documents_name_is_there(self, api: Api) -> None:
        api.make()
        signed = api.app.state.ledger.signer.sign
        eventually(lambda: signed() is None, "all is signed")
        check_ledger(api.app.state.ledger)
        text = "".join(
            (ROOT / name).read_text() for name in ("docs/configuration.md", "docs/operations.md")
        )
        documented = set(re.findall(r"`(keyledger_[a-z_]+)`", text)) - ROLES
        assert len(documented) > 5
        assert documented <= {series.partition("{")[0] for series in api.metrics()}

    def test_positions_and_appends_move_with_each_change(self, api: Api) -> None:
        before = api.metrics()
        key = api.make()
        api.revoke(key)
        after = api.metrics()
        assert after["keyledger_position"] == before["keyledger_position"] + 2
        assert after["keyledger_events_appended_total"] == 2
        assert after["keyledger_append_seconds_count"] == 2
        assert after["keyledger_append_seconds_sum"] > 0
        for view in VIEWS:
            assert after[f'keyledger_projection_lag{{projection="{view.name}"}}'] == 0

    def test_a_refused_change_moves_nothing(self, api: Api) -> None:
        api.post("/v1/keys", json={"name": "", "scopes": []})
        metrics = api.metrics()
        assert metrics["keyledger_events_appended_total"] == 0
        assert metrics["keyledger_append_seconds_count"] == 0

    @pytest.mark.parametrize("query", ["", "?workspace=default"])
    def test_verdicts_are_counted_by_their_code(self, api: Api, query: str) -> None:
        valid, revoked = api.make(workspace="default"), api.revoked(workspace="default")
        codes = ("VALID", "MALFORMED", "NOT_FOUND", "REVOKED", "EXPIRED", "INSUFFICIENT_SCOPE")
        series = {code: f'keyledger_verdicts_total{{code="{code}"}}' for code in codes}
        assert {api.metrics()[each] for each in series.values()} == {0}
        for token in (valid.token, revoked.token, revoked.token, "nonsense"):
            api.post(f"/v1/verify{query}", json={"token": token})
        counted = {code: api.metrics()[each] for code, each in series.items()}
        assert counted == dict.fromkeys(codes, 0) | {"VALID": 1, "REVOKED": 2, "MALFORMED": 1}

    def test_requests_are_counted_by_their_route_and_never_by_their_path(self, api: Api) -> None:
        key = api.make()
        api.show(key)
        api.get("/v1/nowhere/secret")
        api.send("BREW", "/v1/keys")
        text = api.get("/metrics", by=None).text
        name = "keyledger_request_seconds_count"
        assert f'{name}{{method="GET",route="/v1/keys/{{key_id}}",status="200"}} 1.0' in text
        assert f'{name}{{method="POST",route="/v1/keys",status="201"}} 1.0' in text
        assert f'{name}{{method="GET",route="unmatched",status="404"}} 1.0' in text
        assert key.key_id not in text
        assert "secret" not in text
        assert "BREW" not in text


class TestDocs:
    def test_every_example_is_in_the_document(self, api: Api) -> None:
        answer = api.get("/docs", by=None)
        assert answer.status_code == 200
        assert "/openapi.json" in answer.text
        loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        assert len(loaded) == 3
        for path in loaded:
            file = api.get(path, by=None)
            assert file.status_code == 200
            assert len(file.content) > 1000

    def test_of_the_package_with_the_viewer_no_other_file_is_given(self, api: Api) -> None:
        for name in ("redoc.standalone.js", "..%2fcore.py", "core.py", ""):
            refused(api.get(f"/docs/{name}", by=None), 404, "NOT_FOUND")

    def test_the_document_is_at_its_place(self, api: Api) -> None:
        assert api.get("/openapi.json", by=None).json()["info"]["title"] == "Keyledger"
