"""``GET /v1/projections`` and ``POST /v1/projections/{name}/rebuild``."""

import pytest
from httpx2 import Response

from projections.views.registry import VIEWS
from tests.api.served import Api, Json, invalid, refused
from tests.raw_sql import appends_locked, raw
from tests.system.processes import eventually

NAMES = [view.name for view in VIEWS]
FIELDS = [
    "name", "view_version", "position", "last_position", "lag", "rows", "completed_at",
    "rebuild_position", "rebuild",
]  # fmt: skip


def projections(api: Api) -> dict[str, Json]:
    return {each["name"]: each for each in api.get("/v1/projections").json()["data"]}


def rebuild(api: Api, name: str) -> Response:
    return api.post(f"/v1/projections/{name}/rebuild")


def state(api: Api, name: str) -> str:
    state: str = projections(api)[name]["rebuild"]["state"]
    return state


@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    def test_requests_without_a_credential_are_refused(self, shared_api: Api) -> None:
        refused(shared_api.get("/v1/projections", by=None), 401, "UNAUTHENTICATED")
        answer = shared_api.post("/v1/projections/key_list/rebuild", by=None)
        refused(answer, 401, "UNAUTHENTICATED")

    def test_the_read_scope_does_not_allow_rebuilding(self, shared_api: Api) -> None:
        reader = shared_api.make("projections:read", workspace="root")
        assert shared_api.get("/v1/projections", by=reader).status_code == 200
        answer = shared_api.post("/v1/projections/key_list/rebuild", by=reader)
        refused(answer, 403, "INSUFFICIENT_SCOPE")

    @pytest.mark.parametrize("name", [*NAMES, "nonsense"])
    def test_they_concern_all_workspaces_and_need_root(self, shared_api: Api, name: str) -> None:
        admin = shared_api.admin("acme")
        refused(shared_api.get("/v1/projections", by=admin), 403, "WORKSPACE_FORBIDDEN")
        answer = shared_api.post(f"/v1/projections/{name}/rebuild", by=admin)
        refused(answer, 403, "WORKSPACE_FORBIDDEN")


class TestNotFound:
    @pytest.mark.parametrize("name", ["nonsense", "KEY_LIST", "events", "%00", "a" * 5000])
    def test_an_unknown_projection(self, shared_api: Api, name: str) -> None:
        refused(rebuild(shared_api, name), 404, "PROJECTION_NOT_FOUND")


@pytest.mark.only_on("sqlite")
class TestRefused:
    def test_a_query(self, shared_api: Api) -> None:
        invalid(shared_api.get("/v1/projections?limit=1"), "limit")
        invalid(shared_api.post("/v1/projections/key_list/rebuild?force=1"), "force")

    def test_a_second_rebuild_of_the_same_while_one_runs(self, api: Api) -> None:
        with appends_locked(api.address):
            assert rebuild(api, "key_list").status_code == 202
            assert state(api, "key_list") == "running"
            refused(rebuild(api, "key_list"), 409, "REBUILD_RUNNING")
            assert rebuild(api, "auth_lookup").status_code == 202
        begun = ("key_list", "auth_lookup")
        eventually(lambda: {state(api, name) for name in begun} == {"done"}, "both are done")


class TestWorks:
    def test_each_says_how_far_it_has_come(self, api: Api) -> None:
        api.make()
        answer = api.get("/v1/projections")
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json()["next_cursor"] is None
        data = answer.json()["data"]
        assert [each["name"] for each in data] == NAMES
        for each in data:
            assert list(each) == FIELDS
            assert each["position"] == each["last_position"] == api.position()
            assert (each["lag"], each["rows"]) == (0, 2)
            assert each["completed_at"] == "2026-03-03T12:00:00.000000Z"
            assert each["rebuild"] is None
            assert each["rebuild_position"] is None

    @pytest.mark.parametrize("name", NAMES)
    def test_a_started_rebuild_reports_its_end(self, api: Api, name: str) -> None:
        keys = [api.make() for _ in range(3)]
        api.clock.advance(hours=1)
        answer = rebuild(api, name)
        assert answer.status_code == 202
        assert list(answer.json()) == FIELDS
        assert answer.json()["name"] == name
        assert answer.json()["rebuild"]["state"] in {"running", "done"}
        eventually(lambda: state(api, name) != "running", "the rebuild ends")
        ended = projections(api)[name]
        assert ended["rebuild"] == {
            "state": "done",
            "position": api.position(),
            "detail": "4 events; 0 rows of the old table differed",
        }
        assert ended["completed_at"] == "2026-03-03T13:00:00.000000Z"
        assert ended["rows"] == 4
        assert [api.show(key)["name"] for key in keys] == ["payments-api"] * 3
        assert api.get("/v1/keys", by=api.admin()).status_code == 200

    def test_reads_and_verifications_go_on_meanwhile(self, api: Api) -> None:
        key = api.make()
        with appends_locked(api.address):
            rebuild(api, "auth_lookup")
            assert api.show(key)["status"] == "active"
            verdict = api.post("/v1/verify?workspace=acme", json={"token": key.token})
            assert verdict.json()["code"] == "VALID"
        eventually(lambda: state(api, "auth_lookup") == "done", "the rebuild ends")

    def test_a_rebuild_reports_and_repairs_differences(self, api: Api) -> None:
        key = api.make()
        with raw(api.address) as connection:
            connection.execute("UPDATE key_list SET name = 'forged'")
        rebuild(api, "key_list")
        eventually(lambda: state(api, "key_list") != "running", "the rebuild ends")
        detail = projections(api)["key_list"]["rebuild"]["detail"]
        assert detail == "2 events; 2 rows of the old table differed"
        assert api.show(key)["name"] == "payments-api"

    def test_a_failed_rebuild_reports_why_and_leaves_the_old_table(self, api: Api) -> None:
        key = api.make()
        with raw(api.address) as connection:
            connection.execute("UPDATE events SET topic = 'ApiKey.Unheard' WHERE id = 2")
        rebuild(api, "key_list")
        eventually(lambda: state(api, "key_list") != "running", "the rebuild ends")
        failed = projections(api)["key_list"]["rebuild"]
        assert failed["state"] == "failed"
        assert "position 2" in failed["detail"]
        assert api.show(key)["name"] == "payments-api"
