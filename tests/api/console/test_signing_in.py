"""Signing in requires a token; a session never outlives its limits or its key."""

from http.cookies import Morsel, SimpleCookie

import pytest

from domain.tokens import mint
from tests.api.console.visits import (
    BEHIND_TLS,
    SIGN_IN,
    Visit,
    leads_to_sign_in,
    words_in,
)
from tests.api.served import Api, Key

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

HOURS = 3600


@pytest.fixture
def admin(api: Api) -> Key:
    return api.admin()


def cookie_set(api: Api, key: Key, base_url: str) -> Morsel[str]:
    answer = Visit(api, base_url=base_url).sign_in(key.token)
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    return morsel


class TestSigningIn:
    def test_the_root_page_redirects_to_the_keys(self, api: Api, admin: Key) -> None:
        visit = Visit(api)
        start = visit.follow(visit.get("/"))
        assert leads_to_sign_in(start)
        assert "Sign in" in words_in(visit.follow(start))
        answer = visit.follow(visit.follow(visit.sign_in(f"  {admin.token}\n")))
        assert answer.url.path == "/console/keys"
        assert admin.document["prefix"] in answer.text

    def test_the_cookie_is_for_the_server_alone(self, api: Api, admin: Key) -> None:
        cookie = cookie_set(api, admin, "http://testserver")
        assert cookie["httponly"]
        assert cookie["samesite"].lower() == "strict"
        assert cookie["path"] == "/"
        assert cookie["domain"] == ""
        assert int(cookie["max-age"]) == 8 * HOURS
        assert not cookie["secure"]

    def test_behind_tls_it_goes_over_tls_alone(self, api: Api, admin: Key) -> None:
        cookie = cookie_set(api, admin, BEHIND_TLS)
        assert cookie["secure"]
        assert cookie.key.startswith("__Host-")
        visit = Visit.signed_in(api, admin, base_url=BEHIND_TLS)
        assert visit.is_signed_in()
        # Someone who can set a plain cookie in a browser must not choose its session.
        visit.client.cookies = {"keyledger": visit.cookie}
        assert not visit.is_signed_in()

    def test_it_has_the_key_as_the_actor(self, api: Api, admin: Key) -> None:
        visit = Visit.signed_in(api, admin)
        visit.fill_in("/console/keys/new", name="made by hand", scope="mcp:read")
        made = api.get("/v1/keys", by=admin).json()["data"][0]
        assert made["name"] == "made by hand"
        assert made["created_by"] == {"type": "key", "id": admin.key_id}
        assert api.get("/v1/keys/" + made["key_id"] + "/events", by=admin).json()["data"][0][
            "source_ip"
        ]

    @pytest.mark.parametrize("token", ["", "  ", "nonsense", "key_" + "0" * 65, "é" * 70])
    def test_nothing_else_opens(self, token: str, api: Api, admin: Key) -> None:
        unknown = mint("key", lambda count: bytes(range(count))).reveal()
        for wrong in (token, unknown, admin.token[:-50] + unknown[-50:]):
            visit = Visit(api)
            answer = visit.sign_in(wrong)
            assert answer.status_code in (401, 422)
            assert "Set-Cookie" not in answer.headers
            assert 'aria-invalid="true"' in answer.text
            assert not wrong.strip() or wrong not in answer.text
            assert not visit.is_signed_in()

    def test_a_revoked_or_expired_key_is_named_as_such(self, api: Api) -> None:
        expired = api.make("*", expires_at="2026-03-03T12:30:00Z")
        api.clock.advance(hours=1)
        for key, word in ((api.revoked("*"), "revoked"), (expired, "expired")):
            answer = Visit(api).sign_in(key.token)
            assert answer.status_code == 401
            assert word in words_in(answer)

    def test_a_key_without_a_scope_for_the_console_is_told_what_it_lacks(self, api: Api) -> None:
        visit = Visit.signed_in(api, api.make("mcp:read"))
        answer = visit.get("/console")
        assert answer.status_code == 200
        assert "api-keys:read" in words_in(answer)
        assert visit.get("/console/keys").status_code == 403


class TestWhereItLeads:
    def test_back_to_the_page_that_was_wanted(self, api: Api, admin: Key) -> None:
        visit = Visit(api)
        page = visit.follow(visit.get("/console/keys?status=active"))
        assert "next=" in page.text
        answer = visit.sign_in(admin.token, "?next=/console/keys%3Fstatus%3Dactive")
        assert answer.headers["Location"] == "/console/keys?status=active"

    @pytest.mark.parametrize(
        "elsewhere",
        [
            "https://evil.example/console/keys",
            "//evil.example/console/keys",
            "/\\evil.example/console/",
            "/console/\\evil",
            "/console/../v1/keys",
            "/console/%2e%2E/v1/keys",
            "/console/./keys",
            "/v1/keys",
            "/consolex",
            "javascript:alert(1)",
            "/console/keys\r\nSet-Cookie: a=b",
            "http://[",
        ],
    )
    def test_nowhere_else(self, elsewhere: str, api: Api, admin: Key) -> None:
        visit = Visit(api)
        answer = visit.post("/console/sign-in", {"token": admin.token}, params={"next": elsewhere})
        assert answer.headers["Location"] == "/console"

    def test_a_token_in_an_address_is_not_forwarded(self, api: Api, admin: Key) -> None:
        answer = Visit(api).get(f"/console/keys/{admin.token}")
        assert leads_to_sign_in(answer)
        assert admin.token not in answer.headers["Location"]


class TestFixation:
    def test_a_forged_value_is_never_a_session(self, api: Api, admin: Key) -> None:
        planted = "A" * 43
        visit = Visit(api)
        visit.client.cookies.set("keyledger", planted)
        answer = visit.sign_in(admin.token)
        assert planted not in answer.headers["Set-Cookie"]
        attacker = Visit(api)
        attacker.client.cookies.set("keyledger", planted)
        assert not attacker.is_signed_in()

    def test_signing_in_anew_ends_the_session_that_was_there(self, api: Api, admin: Key) -> None:
        visit = Visit.signed_in(api, admin)
        before = visit.cookie
        visit.sign_in(admin.token)
        assert visit.cookie != before
        assert visit.is_signed_in()
        old = Visit(api)
        old.client.cookies.set("keyledger", before)
        assert not old.is_signed_in()


class TestTheEnd:
    def test_signing_out_ends_it_on_the_server(self, api: Api, admin: Key) -> None:
        visit = Visit.signed_in(api, admin)
        value = visit.cookie
        answer = visit.post("/console/sign-out", {"csrf_token": visit.csrf_token()})
        assert leads_to_sign_in(answer)
        assert "Max-Age=0" in answer.headers["Set-Cookie"]
        copied = Visit(api)
        copied.client.cookies.set("keyledger", value)
        assert not copied.is_signed_in()

    @pytest.mark.parametrize("minutes", [30, 59])
    def test_its_time_is_up_however_much_it_is_used(
        self, minutes: int, api: Api, admin: Key
    ) -> None:
        visit = Visit.signed_in(api, admin)
        times, rest = divmod(8 * 60 - 1, minutes)
        for _ in range(times):
            api.clock.advance(minutes=minutes)
            assert visit.is_signed_in()
        api.clock.advance(minutes=rest + 1)
        assert not visit.is_signed_in()

    def test_it_is_idle(self, api: Api, admin: Key) -> None:
        visit = Visit.signed_in(api, admin)
        api.clock.advance(hours=1)
        answer = visit.get("/console/keys")
        assert leads_to_sign_in(answer)
        assert "session has ended" in words_in(visit.follow(answer))

    def test_its_key_is_revoked(self, api: Api, admin: Key) -> None:
        visit = Visit.signed_in(api, admin)
        csrf_token = visit.csrf_token()
        api.revoke(admin)
        before = api.position()
        answer = visit.post("/console/keys/new", {"csrf_token": csrf_token, "name": "x"})
        assert leads_to_sign_in(answer)
        assert api.position() == before
        assert "revoked" in words_in(answer)
        assert not visit.is_signed_in()

    def test_its_key_expires(self, api: Api) -> None:
        visit = Visit.signed_in(api, api.make("*", expires_at="2026-03-03T12:30:00Z"))
        assert visit.is_signed_in()
        api.clock.advance(minutes=30)
        answer = visit.get("/console/keys")
        assert leads_to_sign_in(answer)
        assert "expired" in words_in(visit.follow(answer))

    def test_its_key_loses_a_scope(self, api: Api, admin: Key) -> None:
        visit = Visit.signed_in(api, admin)
        api.patch(admin.path, params={"workspace": "acme"}, json={"scopes": ["api-keys:read"]})
        assert visit.get("/console/keys").status_code == 200
        assert visit.get("/console/keys/new").status_code == 403

    def test_a_key_that_revokes_itself_is_signed_out(self, api: Api, admin: Key) -> None:
        visit = Visit.signed_in(api, admin)
        answer = visit.fill_in(
            f"/console/keys/{admin.key_id}/revoke", reason="Leaked", understood="yes"
        )
        page = visit.follow(answer)
        assert leads_to_sign_in(page)
        assert SIGN_IN + "?ended=revoked" in page.headers["Location"]
