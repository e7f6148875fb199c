"""``GET /v1/keys``."""

import pytest

from tests.api.served import KEY_FIELDS, Api, Json, Key, invalid, refused


def names(document: Json) -> list[str]:
    return [key["name"] for key in document["data"]]


def listed(api: Api, by: Key | None = None, **query: str) -> list[str]:
    """Return the names of the keys that match a query, newest first."""
    answer = api.get("/v1/keys", by=by or "root", params=query)
    assert answer.status_code == 200, answer.text
    return names(answer.json())


@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    def test_nobody_lists_without_a_credential(self, api: Api) -> None:
        refused(api.get("/v1/keys", by=None), 401, "UNAUTHENTICATED")

    def test_a_key_that_may_only_write_lists_nothing(self, api: Api) -> None:
        refused(api.get("/v1/keys", by=api.make("api-keys:write")), 403, "INSUFFICIENT_SCOPE")


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=-1", "limit"),
            ("limit=many", "limit"),
            ("limit=1.5", "limit"),
            ("limit=", "limit"),
            ("status=dead", "status"),
            ("status=ACTIVE", "status"),
            ("q=", "q"),
            ("q=" + "q" * 121, "q"),
            ("q=a%00", "q"),
            ("scope=mcp", "scope"),
            ("scope=" + "a" * 129, "scope"),
            ("created_by=" + "a" * 201, "created_by"),
            ("created_by=a%00", "created_by"),
            ("expires_before=tomorrow", "expires_before"),
            ("expires_before=2027-01-01T00:00:00", "expires_before"),
            ("expires_before=9999-12-31T23:59:59-01:00", "expires_before"),
            ("as_of=2026-03-03T12:00:00.000001Z", "as_of"),
            ("as_of=0001-01-01T00:00:00%2B01:00", "as_of"),
            ("workspace=" + "w" * 64, "workspace"),
            ("colour=red", "colour"),
            ("Limit=5", "Limit"),
            ("cursor=", "cursor"),
            ("cursor=nonsense", "cursor"),
        ],
    )
    def test_a_wrong_parameter_is_refused_by_its_name(
        self, api: Api, query: str, field: str
    ) -> None:
        invalid(api.get(f"/v1/keys?{query}"), field)


class TestWorks:
    def test_an_empty_workspace_has_an_empty_list(self, api: Api) -> None:
        answer = api.get("/v1/keys", params={"workspace": "nowhere"})
        assert answer.json() == {"data": [], "next_cursor": None}
        assert answer.headers["Cache-Control"] == "no-store"

    def test_the_newest_comes_first_and_each_is_as_it_is_alone(self, api: Api) -> None:
        keys = [api.make(name=f"key {number}") for number in range(3)]
        answer = api.get("/v1/keys", params={"workspace": "acme"}).json()
        assert answer == {"data": [api.show(key) for key in reversed(keys)], "next_cursor": None}
        assert all(list(key) == KEY_FIELDS for key in answer["data"])

    def test_a_key_lists_its_own_workspace(self, api: Api) -> None:
        admin = api.admin("acme")
        api.make(name="theirs", workspace="other")
        assert listed(api, by=admin) == ["admin"]

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
    def test_following_the_cursors_gives_every_key_once(self, api: Api, limit: int) -> None:
        for number in range(7):
            api.make(name=str(number))
        query = {"workspace": "acme", "limit": str(limit)}
        found: list[str] = []
        pages = 0
        while True:
            page = api.get("/v1/keys", params=query).json()
            found += names(page)
            pages += 1
            assert len(page["data"]) <= limit
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert found == ["6", "5", "4", "3", "2", "1", "0"]
        assert pages == -(-7 // limit)

    def test_a_page_has_50_items_by_default(self, api: Api) -> None:
        for number in range(51):
            api.make(name=str(number))
        page = api.get("/v1/keys", params={"workspace": "acme"}).json()
        assert len(page["data"]) == 50
        assert page["next_cursor"] is not None

    def test_keys_made_meanwhile_move_nothing_on_later_pages(self, api: Api) -> None:
        for number in range(4):
            api.make(name=str(number))
        query = {"workspace": "acme", "limit": "2"}
        first = api.get("/v1/keys", params=query).json()
        api.make(name="new")
        second = api.get("/v1/keys", params=query | {"cursor": first["next_cursor"]}).json()
        assert names(first) + names(second) == ["3", "2", "1", "0"]


class TestFilters:
    @pytest.mark.parametrize(
        ("status", "found"),
        [("active", ["lives"]), ("revoked", ["revoked"]), ("expired", ["expired"])],
    )
    def test_by_status(self, api: Api, status: str, found: list[str]) -> None:
        api.make(name="lives", expires_at="2026-03-03T14:00:00Z")
        api.make(name="expired", expires_at="2026-03-03T13:00:00Z")
        api.revoke(api.make(name="revoked", expires_at="2026-03-03T13:00:00Z"))
        api.clock.advance(hours=1)
        assert listed(api, workspace="acme", status=status) == found

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("PAYMENTS", ["new payments", "payments-api"]),
            ("-api", ["payments-api"]),
            ("100%", ["100% sure"]),
            ("_", []),
        ],
    )
    def test_by_a_part_of_the_name(self, api: Api, text: str, found: list[str]) -> None:
        for name in ("payments-api", "new payments", "100% sure", "1000 others"):
            api.make(name=name)
        assert listed(api, workspace="acme", q=text) == found

    def test_by_the_beginning_of_the_prefix_or_the_key_id(self, api: Api) -> None:
        key = api.make(name="wanted")
        api.make(name="other")
        assert listed(api, workspace="acme", q=key.token[:12]) == ["wanted"]
        assert listed(api, workspace="acme", q=key.key_id) == ["wanted"]
        assert listed(api, workspace="acme", q=key.key_id[8:]) == []

    @pytest.mark.parametrize(
        ("scope", "found"),
        [
            ("mcp:read", ["all", "any mcp", "reads"]),
            ("mcp:write", ["all", "any mcp"]),
            ("mcp:*", ["all", "any mcp"]),
            ("other:read", ["all"]),
            ("*", ["all"]),
        ],
    )
    def test_by_what_the_key_may_do(self, api: Api, scope: str, found: list[str]) -> None:
        api.make("mcp:read", name="reads")
        api.make("x:y", "mcp:*", name="any mcp")
        api.make("*", name="all")
        assert listed(api, workspace="acme", scope=scope) == found

    def test_by_who_made_it(self, api: Api) -> None:
        admin = api.admin()
        api.make(name="made by admin", by=admin)
        assert listed(api, workspace="acme", created_by=admin.key_id) == ["made by admin"]
        assert listed(api, workspace="acme", created_by="nobody") == []

    def test_by_an_end_before_a_time(self, api: Api) -> None:
        api.make(name="never")
        api.make(name="soon", expires_at="2026-03-04T00:00:00Z")
        api.make(name="later", expires_at="2026-03-05T00:00:00Z")
        found = listed(api, workspace="acme", expires_before="2026-03-05T02:00:00+02:00")
        assert found == ["soon"]

    def test_all_at_once_each_takes_away(self, api: Api) -> None:
        admin = api.admin()
        api.make(name="wanted", by=admin, expires_at="2026-03-04T00:00:00Z")
        api.make(name="wanted too", by=admin)
        api.make(name="other", by=admin, expires_at="2026-03-04T00:00:00Z")
        found = listed(
            api,
            workspace="acme",
            q="wanted",
            status="active",
            scope="mcp:read",
            created_by=admin.key_id,
            expires_before="2027-01-01T00:00:00Z",
        )
        assert found == ["wanted"]

    def test_as_of_a_time_in_the_past(self, api: Api) -> None:
        key = api.make(name="first name")
        api.clock.advance(hours=1)
        changed = {"name": "second name"}
        api.patch(key.path, params={"workspace": "acme"}, json=changed)
        api.make(name="newer")
        api.revoke(key)
        assert listed(api, workspace="acme", as_of="2026-03-03T12:30:00Z") == ["first name"]
        assert listed(api, workspace="acme", as_of="2026-03-03T11:59:59Z") == []
        assert listed(api, workspace="acme", status="revoked") == ["second name"]
        assert listed(api, workspace="acme", as_of="2026-03-03T12:30:00Z", status="revoked") == []
