"""A form that is sent after the session has ended is there again after signing in."""

import pytest
from httpx2 import Response

from tests.api.console.visits import Fields, Visit, form_in, leads_to_sign_in, words_in
from tests.api.served import Api, Key

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

NEW = "/console/keys/new"
TYPED = {
    "name": ["payments <b>&"],
    "scope": ["mcp:read", "mcp:write"],
    "more_scopes": ["a:b\nc:*"],
    "expiration": ["date"],
    "day": ["2027-03-31"],
    "prefix": ["blnk"],
}


@pytest.fixture
def admin(api: Api) -> Key:
    return api.admin()


@pytest.fixture
def visit(api: Api, admin: Key) -> Visit:
    return Visit.signed_in(api, admin)


def send_late(api: Api, visit: Visit, path: str, typed: Fields) -> Response:
    """Open a form, let the session end, and send the form."""
    form = form_in(visit.get(path), path.partition("?")[0])
    api.clock.advance(hours=2)
    before = api.position()
    answer = visit.post(form.action, form.fields | typed)
    assert leads_to_sign_in(answer)
    assert "session has ended" in words_in(answer)
    assert api.position() == before
    return answer


def sign_in_again(visit: Visit, page: Response, token: str) -> Response:
    form = form_in(page, "/console/sign-in")
    return visit.post(form.action, form.fields | {"token": [token]})


def test_a_new_key_is_asked_for_again_with_what_was_typed(
    api: Api, admin: Key, visit: Visit
) -> None:
    page = send_late(api, visit, NEW, TYPED)
    page = sign_in_again(visit, page, "wrong")
    assert page.status_code == 401
    before = api.position()
    page = sign_in_again(visit, page, admin.token)
    assert page.status_code == 200
    assert "Nothing was changed yet" in words_in(page)
    assert api.position() == before
    form = form_in(page, NEW)
    shown = {name: form.fields.get(name) for name in TYPED if name != "more_scopes"}
    assert shown == {name: TYPED[name] for name in shown}
    assert ">a:b\nc:*</textarea>" in page.text
    assert visit.post(form.action, form.fields | {"more_scopes": ["a:b"]}).status_code == 201


@pytest.mark.parametrize(
    ("action", "typed"),
    [
        ("rename", {"name": ["renamed"]}),
        ("scopes", {"scope": ["mcp:write"]}),
        ("expiration", {"expiration": ["90"]}),
        ("rotate", {"grace": ["3600"], "expiration": ["7"]}),
        ("revoke", {"reason": ["Leaked"]}),
    ],
)
def test_a_change_is_there_again(
    action: str, typed: Fields, api: Api, admin: Key, visit: Visit
) -> None:
    key = api.make("mcp:read", by=admin)
    path = f"/console/keys/{key.key_id}/{action}"
    page = sign_in_again(visit, send_late(api, visit, path, typed), admin.token)
    form = form_in(page, path)
    assert {name: form.fields.get(name) for name in typed} == typed
    assert api.event_types(key) == ["Created"]
    answer = visit.post(form.action, form.fields | {"understood": ["yes"]})
    assert answer.status_code in (201, 303)
    assert len(api.event_types(key)) == 2


def test_a_change_made_meanwhile_is_not_overwritten(api: Api, admin: Key, visit: Visit) -> None:
    key = api.make(by=admin)
    path = f"/console/keys/{key.key_id}/rename"
    page = send_late(api, visit, path, {"name": ["mine"]})
    api.patch(key.path, by=admin, json={"name": "changed meanwhile"})
    form = form_in(sign_in_again(visit, page, admin.token), path)
    assert visit.post(form.action, form.fields).status_code == 412
    assert api.show(key)["name"] == "changed meanwhile"


def test_the_workspace_and_the_filters_are_kept(api: Api) -> None:
    visit = Visit.signed_in(api, api.root)
    page = send_late(api, visit, f"{NEW}?workspace=acme&q=pay", {"name": ["kept"]})
    form = form_in(sign_in_again(visit, page, api.root.token), NEW)
    assert form.action == f"{NEW}?workspace=acme&q=pay"
    assert form.fields["name"] == ["kept"]


def test_no_token_is_kept(api: Api, admin: Key, visit: Visit) -> None:
    typed = TYPED | {"name": [f"my {admin.token}"], "token": [admin.token]}
    page = send_late(api, visit, NEW, typed)
    assert admin.token not in page.text
    page = sign_in_again(visit, page, admin.token)
    assert admin.token not in page.text
    assert form_in(page, NEW).fields["day"] == ["2027-03-31"]


def test_a_form_that_is_too_long_to_be_searched_for_tokens_is_not_kept(
    api: Api, visit: Visit
) -> None:
    late = {name: [f"{number}" * 5_000] for number, name in enumerate(("name", "comment"))}
    api.clock.advance(hours=2)
    answer = visit.post(NEW, TYPED | late)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/console/sign-in")


def test_a_key_that_may_not_open_the_form_is_shown_why(api: Api, visit: Visit) -> None:
    page = send_late(api, visit, NEW, TYPED)
    reader = api.make("api-keys:read", workspace="acme")
    answer = sign_in_again(visit, page, reader.token)
    assert answer.headers["Location"] == NEW
    assert visit.follow(answer).status_code == 403


@pytest.mark.parametrize("path", ["/console/projections", "https://evil.example/console/keys/new"])
def test_only_forms_of_the_console_are_shown(path: str, api: Api, admin: Key, visit: Visit) -> None:
    page = send_late(api, visit, NEW, TYPED)
    fields = form_in(page, "/console/sign-in").fields | {"token": [admin.token]}
    answer = visit.post("/console/sign-in", fields, params={"next": path})
    assert answer.status_code == 303
    assert not answer.headers["Location"].startswith("https:")


def test_a_form_of_another_site_is_not_kept(api: Api, visit: Visit) -> None:
    api.clock.advance(hours=2)
    answer = visit.post(NEW, TYPED, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "payments" not in answer.text
