"""The console in a real browser with a real server, by mouse and by keyboard."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect

from tests.engines import address_of
from tests.programs import needs
from tests.raw_sql import raw
from tests.system.browsers import CHROMIUM, DESKTOP, PHONE, Screen, chromium
from tests.system.clients import Client, answered
from tests.system.processes import Server, eventually, servers_in

pytestmark = [needs(CHROMIUM, "chromium"), pytest.mark.only_on("sqlite")]

WINDOWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light", "has_touch": True},
    "no-script": {"viewport": DESKTOP, "java_script_enabled": False},
}
NAMES = ".cell-name a"
OpenScreen = Callable[[str], Screen]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers_in(tmp_path_factory.mktemp("console")) as servers:
        yield servers.start(expirer_seconds=0.05, last_used_seconds=0.05, token_prefix="blnk")


@pytest.fixture(scope="module")
def admin(server: Server) -> Client:
    """Somebody in a workspace that has keys of every kind."""
    made = answered(server.client().create("Ada Lovelace", ["*"], workspace="acme"), 201)
    client = server.client(made["token"])
    _fill(client)
    return client


def _fill(client: Client) -> None:
    now = datetime.now(UTC)
    kinds: tuple[tuple[str, list[str], int | None], ...] = (
        ("nightly-report", ["reports:read"], 12),
        ("mcp-gateway", ["mcp:*", "hooks:read", "billing:read", "billing:write"], 80),
        ("billing-worker", ["billing:*"], None),
        ("Mobile app, staging and review builds", ["mcp:read"], 31),
        ("payments", ["mcp:read", "mcp:write"], None),
    )
    made = {}
    for name, scopes, days in kinds:
        end = None if days is None else (now + timedelta(days=days, minutes=5)).isoformat()
        made[name] = answered(client.create(name, scopes, expires_at=end), 201)
    answered(client.revoke(made["billing-worker"]["key_id"], "leaked in a build log"))
    answered(client.update(made["payments"]["key_id"], name="payments-api"))
    client.verdict(made["payments"]["token"])
    end = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    old = answered(client.create("load-test", ["mcp:read"], expires_at=end), 201)
    eventually(lambda: len(client.history(old["key_id"])) > 1, "the key has expired")


@pytest.fixture
def opened(browser: Browser, server: Server) -> Iterator[OpenScreen]:
    """A way to open windows, in none of which anything may go wrong."""
    screens = []

    def open_screen(name: str) -> Screen:
        screens.append(Screen(browser, server.url, name, **WINDOWS[name]))
        return screens[-1]

    yield open_screen
    for screen in screens:
        screen.close()


@pytest.mark.parametrize("name", ["desktop", "phone"])
def test_the_list_is_searched_and_shown_as_it_was(
    name: str, opened: OpenScreen, admin: Client
) -> None:
    screen = opened(name)
    page = screen.sign_in(admin.token)
    screen.look("keys", "API keys")
    page.get_by_label("Search").fill("night")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(NAMES)).to_have_text(["nightly-report"])
    page.get_by_role("link", name="Clear").click()
    if name == "phone":
        page.get_by_text("Filters", exact=True).click()
    page.get_by_label("Status").select_option("Revoked")
    page.get_by_label("Scope", exact=True).fill("billing:write")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(NAMES)).to_have_text(["billing-worker"])
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Search").fill("nobody has this name")
    page.get_by_role("button", name="Apply").click()
    screen.look("no-key-fits", "API keys")
    page.get_by_role("link", name="Show all keys").click()
    if name != "phone":
        page.get_by_role("columnheader", name="Name").get_by_role("link").click()
        expect(page.get_by_role("columnheader", name="Name")).to_have_attribute(
            "aria-sort", "ascending"
        )
        names = page.locator(NAMES).all_inner_texts()
        assert names == sorted(names, key=str.lower)
    past = datetime.now(UTC) - timedelta(minutes=1)
    page.goto(f"/console/keys?as_of={past:%Y-%m-%dT%H:%M}")
    expect(page.get_by_text("This is the past")).to_be_visible()
    assert page.get_by_role("link", name="Create API key").count() == 0
    page.goto(f"/console/keys?as_of={datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")
    screen.look("past", "API keys")
    page.get_by_role("link", name="nightly-report").click()
    expect(page.get_by_text("This is the past")).to_be_visible()
    page.get_by_role("link", name="Back to now").click()
    expect(page.get_by_role("link", name="Revoke", exact=True)).to_be_visible()
    page.goto("/console/keys/nothing")
    screen.look("not-found", "No such key")


@pytest.fixture(scope="module")
def crowded(server: Server) -> Client:
    """An admin of a workspace with more keys than a page has."""
    made = answered(server.client().create("Grace Hopper", ["*"], workspace="crowded"), 201)
    client = server.client(made["token"])
    for number in range(55):
        scopes = ["mcp:read", "mcp:write", "hooks:read", "billing:read", "billing:write"]
        answered(client.create(f"service {number:02}", scopes[: 1 + number % 5]), 201)
    return client


@pytest.mark.parametrize("width", [1280, 1024, 360])
def test_nothing_of_the_list_is_cut_off(width: int, opened: OpenScreen, crowded: Client) -> None:
    screen = opened("desktop")
    page = screen.page
    page.set_viewport_size({"width": width, "height": 740 if width == 360 else 860})
    screen.sign_in(crowded.token)
    screen.look(f"crowded-{width}", "API keys")
    expect(page.get_by_text("Keys 1 to 50 of 56", exact=True)).to_be_visible()
    rows = page.locator(".keys tbody tr")
    assert rows.count() == 50
    for row in rows.all()[:6]:
        place = box(row)
        badge = row.get_by_text("Active")
        expect(badge).to_be_visible()
        assert box(badge)["x"] + box(badge)["width"] <= place["x"] + place["width"]
        assert place["x"] + place["width"] <= width
        for cell in row.locator("th, td").all():
            clipped = cell.evaluate("cell => cell.scrollWidth > cell.clientWidth + 1")
            assert not clipped, cell.inner_text()
        if width > 360:
            assert 40 <= place["height"] <= 48
    last = box(rows.nth(2))
    assert last["y"] + last["height"] < 740, "the first screen shows three keys at least"


@pytest.mark.parametrize("width", [1280, 1024])
def test_a_row_opens_its_key_and_the_way_back_keeps_the_filters(
    width: int, opened: OpenScreen, crowded: Client
) -> None:
    screen = opened("desktop")
    page = screen.page
    page.set_viewport_size({"width": width, "height": 860})
    screen.sign_in(crowded.token)
    page.get_by_role("link", name="Next page").click()
    page.get_by_role("link", name="Previous page").click()
    page.get_by_label("Search").fill("service 1")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("10 keys", exact=True)).to_be_visible()
    row = page.locator(".keys tbody tr", has_text="service 17")
    # Anywhere in the row, such as beside a time.
    row.locator("td").nth(2).click(force=True)
    expect(page.get_by_role("heading", name="service 17", level=1)).to_be_visible()
    beside = page.get_by_role("region", name="API keys")
    if width == 1280:
        expect(beside.get_by_role("link", name="service 17")).to_have_attribute(
            "aria-current", "page"
        )
        beside.get_by_role("link", name="service 11").click()
        expect(page.get_by_role("heading", name="service 11", level=1)).to_be_visible()
        screen.look("panel", "service 11")
        page.get_by_role("link", name="Close").click()
    else:
        expect(beside).to_be_hidden()
        page.get_by_role("main").get_by_role("link", name="API keys").click()
    expect(page.get_by_label("Search")).to_have_value("service 1")
    expect(page.get_by_text("10 keys", exact=True)).to_be_visible()


def test_the_menu_of_a_row_copies_and_leads_to_the_changes(
    opened: OpenScreen, crowded: Client, server: Server
) -> None:
    screen = opened("desktop")
    page = screen.sign_in(crowded.token)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    menu = page.locator(".keys tbody tr", has_text="service 54").locator("details")
    menu.locator("summary").press("Enter")
    screen.look("menu", "API keys")
    menu.get_by_role("button", name="Copy key ID").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == crowded.list_keys(q="service 54")[0]["key_id"]
    page.keyboard.press("Escape")
    expect(menu.get_by_role("link", name="Rotate", exact=True)).to_be_hidden()
    menu.locator("summary").click()
    menu.get_by_role("link", name="Rotate", exact=True).click()
    assert page.url.endswith(f"/{copied}/rotate")


def box(element: Locator) -> FloatRect:
    """Return where an element is on the page, in pixels."""
    place = element.bounding_box()
    assert place is not None
    return place


@pytest.mark.parametrize("name", WINDOWS)
def test_a_key_is_created_changed_and_revoked(name: str, opened: OpenScreen, admin: Client) -> None:
    screen = opened(name)
    page = screen.page
    page.goto("/")
    screen.look("sign-in", "Sign in")
    screen.sign_in(admin.token)
    token = _make(screen, f"search-indexer {name}")
    assert admin.verify(token) == "VALID"
    _save(screen, token)
    _change(screen, f"indexer {name}")
    successor = _rotate(screen, f"indexer {name}")
    assert (admin.verify(token), admin.verify(successor)) == ("EXPIRED", "VALID")
    _revoke(screen)
    assert admin.verify(successor) == "REVOKED"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_contain_text("signed out")
    page.go_back()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in to Keyledger")).to_be_visible()


def _make(screen: Screen, key_name: str) -> str:
    page = screen.page
    page.get_by_role("link", name="Create API key").click()
    page.get_by_label("Name", exact=True).fill(key_name)
    page.get_by_label("mcp:read").check()
    page.get_by_label("Other scopes").fill("billing:read")
    screen.look("create", "Create API key")
    page.get_by_role("button", name="Create API key").click()
    expect(page.get_by_role("heading", name="Save your API key")).to_be_visible()
    screen.look("save", "Save your API key")
    return page.get_by_label(key_name).input_value()


def _save(screen: Screen, token: str) -> None:
    page = screen.page
    page.get_by_role("button", name="Done").click()
    assert page.url.endswith("/console/keys/new"), "Done before the box is ticked"
    page.reload()
    expect(page.get_by_role("heading", name="This key was created already")).to_be_visible()
    assert token not in page.content()
    page.get_by_role("link", name="Show the key").click()
    expect(page.get_by_role("heading", name="Details")).to_be_visible()
    assert token not in page.content()


def _change(screen: Screen, new_name: str) -> None:
    page = screen.page
    page.get_by_role("link", name="Rename", exact=True).click()
    screen.look("rename", "Rename")
    page.get_by_label("Name", exact=True).fill(new_name)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("name was changed")
    page.get_by_role("link", name="Update expiration", exact=True).click()
    screen.look("expiration", "Update expiration")
    page.get_by_label("90 days").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("expiration was changed")
    page.get_by_role("link", name="Change scopes", exact=True).click()
    screen.look("scopes", "Change scopes")
    expect(page.get_by_label("mcp:read")).to_be_checked()
    expect(page.get_by_label("Other scopes")).to_have_value("billing:read")
    page.get_by_label("mcp:write").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("scopes were changed")


def _rotate(screen: Screen, key_name: str) -> str:
    page = screen.page
    page.get_by_role("link", name="Rotate", exact=True).click()
    screen.look("rotate", "Rotate")
    page.get_by_label("At once").check()
    page.get_by_role("button", name="Rotate key").click()
    expect(page.get_by_text("has stopped working")).to_be_visible()
    token = page.get_by_label(key_name).input_value()
    page.get_by_label("I have saved my API key securely").check()
    page.get_by_role("button", name="Done").click()
    return token


def _revoke(screen: Screen) -> None:
    page = screen.page
    page.get_by_role("link", name="Revoke", exact=True).click()
    page.get_by_label("Reason").fill("Leaked")
    page.get_by_label("Comment").fill("Found by the secret scanner\nin build 4711.")
    screen.look("revoke", "Revoke")
    page.get_by_label("I understand that this cannot be undone").check()
    page.get_by_role("button", name="Revoke key").click()
    expect(page.get_by_role("status")).to_contain_text("revoked")
    expect(page.get_by_role("heading", name="Revoked", exact=True)).to_be_visible()
    screen.look("key", "indexer")


@pytest.mark.parametrize("name", ["dark", "phone", "no-script"])
def test_root_can_choose_workspaces_and_rebuild(
    name: str, opened: OpenScreen, server: Server, admin: Client
) -> None:
    assert server.root_token is not None
    screen = opened(name)
    page = screen.sign_in(server.root_token)
    page.locator("summary", has_text="Workspace").click()
    page.get_by_label("Other workspace").fill("fresh")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="No API keys yet")).to_be_visible()
    screen.look("empty", "API keys")
    page.locator("summary", has_text="Workspace").click()
    page.get_by_role("link", name="acme", exact=True).click()
    expect(page.get_by_role("link", name="nightly-report")).to_be_visible()
    page.get_by_role("link", name="Projections").click()
    with raw(address_of(server.log_path.with_name("keyledger-data"))) as connection:
        # The rebuild waits for who writes.
        connection.execute("BEGIN IMMEDIATE")
        page.get_by_role("button", name="Rebuild key_list").click()
        expect(page.get_by_role("progressbar", name="Rebuilding")).to_be_visible()
        screen.look("rebuilding", "Projections")
        connection.execute("ROLLBACK")
    # With a script the page asks again by itself, without one it reloads itself.
    expect(page.get_by_text("rows of the old table differed")).to_be_visible()
    screen.look("projections", "Projections")
    assert admin.list_keys()


@pytest.mark.parametrize("name", WINDOWS)
def test_an_auditor_finds_an_event_and_its_proof_and_root_verifies(
    name: str, opened: OpenScreen, server: Server, admin: Client
) -> None:
    screen = opened(name)
    page = screen.sign_in(admin.token)
    page.get_by_role("link", name="Audit").click()
    page.get_by_label("Event", exact=True).select_option("Revoked")
    page.get_by_label("From").fill("2020-03-03T09:30")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_label("From")).to_have_value("2020-03-03T09:30")
    expect(page.get_by_text("leaked in a build log")).to_be_visible()
    with page.expect_download() as kept:
        page.get_by_role("link", name="Export CSV").click()
    assert kept.value.suggested_filename == "events.csv"
    assert "leaked in a build log" in kept.value.path().read_text()
    page.get_by_role("link", name="billing-worker").click()
    page.get_by_role("link", name="in the log").first.click()
    expect(page.get_by_text("The same as the fingerprint of the checkpoint")).to_be_visible()
    screen.look("proof", "Entry")
    page.get_by_role("button", name="Sign out").click()
    assert server.root_token is not None
    screen.sign_in(server.root_token)
    page.locator("summary", has_text="Workspace").click()
    page.get_by_role("link", name="acme", exact=True).click()
    page.get_by_role("link", name="Audit").click()
    with raw(address_of(server.log_path.with_name("keyledger-data"))) as connection:
        # The comparison of the projections waits for who writes.
        connection.execute("BEGIN IMMEDIATE")
        page.get_by_role("button", name="Check now").click()
        expect(page.get_by_role("progressbar", name=re.compile("Step 3 of"))).to_be_visible()
        screen.look("verifying", "Audit")
        connection.execute("ROLLBACK")
    # With a script the page asks again by itself, without one it reloads itself.
    expect(page.get_by_text("The integrity check has finished.")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("No tampering found")).to_be_visible()
    screen.look("audit", "Audit")


def test_times_are_the_readers_and_their_titles_are_utc(opened: OpenScreen, admin: Client) -> None:
    made = admin.list_keys()[-1]
    at = datetime.fromisoformat(made["created_at"])
    told = {}
    for name in ("desktop", "no-script"):
        page = opened(name).sign_in(admin.token)
        page.goto(f"/console/keys/{made['key_id']}")
        time = page.locator(".facts time").first
        assert time.get_attribute("title") == f"{at:%Y-%m-%d %H:%M:%S} UTC"
        told[name] = time.inner_text()
    assert told["no-script"].endswith(f"{at:%H:%M} UTC")
    assert f"{(at.hour + 1) % 24:02}:{at:%M}" in told["desktop"]  # Berlin, in winter


def test_the_copy_button_copies_the_text(opened: OpenScreen, admin: Client, server: Server) -> None:
    screen = opened("desktop")
    page = screen.sign_in(admin.token)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    page.get_by_role("link", name="payments-api").click()
    page.get_by_role("button", name="Copy the key ID").click()
    expect(page.locator("#said")).to_have_text("Copied to the clipboard")
    assert page.evaluate("navigator.clipboard.readText()") == page.url.rpartition("/")[2]


def test_a_time_is_chosen_in_the_readers_zone(opened: OpenScreen, admin: Client) -> None:
    page = opened("desktop").sign_in(admin.token)
    at = datetime.now(UTC) - timedelta(minutes=30)
    local = at + timedelta(hours=1)  # Berlin, in winter
    page.get_by_label("List as of (your time)").fill(f"{local:%Y-%m-%dT%H:%M}")
    page.get_by_role("button", name="Look back").click()
    expect(page.get_by_text("There were no keys yet")).to_be_visible()
    assert f"as_of={at:%Y-%m-%dT%H}%3A{at:%M}Z" in page.url
    expect(page.get_by_label("List as of")).to_have_value(f"{local:%Y-%m-%dT%H:%M}")


def test_everything_is_reached_by_keyboard_and_the_focus_is_seen(
    opened: OpenScreen, admin: Client
) -> None:
    page = opened("desktop").page
    page.goto("/")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(admin.token)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="API keys", level=1).wait_for()
    page.keyboard.press("Tab")
    assert _focused(page) == "Skip to the content"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(_focused(page))
        # After the last of the page it is the browser's own turn.
        if not page.evaluate("document.activeElement === document.body"):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", page.evaluate("document.activeElement.outerHTML")
    assert {"Create API key", "Apply", "nightly-report", "Sign out", "Name"} <= reached
    page.get_by_role("link", name="Create API key").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Name", exact=True).press_sequentially("by keyboard")
    page.get_by_label("mcp:read").press("Space")
    page.get_by_label("mcp:read").press("Enter")
    expect(page.get_by_role("heading", name="Save your API key")).to_be_visible()


def _focused(page: Page) -> str:
    text: str = page.evaluate("document.activeElement.innerText")
    return text.strip()


def test_a_session_ends_in_the_moment_in_which_its_key_does(
    opened: OpenScreen, admin: Client
) -> None:
    made = answered(admin.create("leaving", ["api-keys:read", "api-keys:write"]), 201)
    page = opened("desktop").sign_in(made["token"])
    page.get_by_role("link", name="Create API key").click()
    page.get_by_label("Name", exact=True).fill("never made")
    answered(admin.revoke(made["key_id"]))
    page.get_by_label("api-keys:read").check()
    page.get_by_role("button", name="Create API key").click()
    expect(page.get_by_role("status")).to_contain_text("was revoked")
    assert "never made" not in {key["name"] for key in admin.list_keys()}


def test_a_script_in_a_name_or_a_comment_is_not_run(opened: OpenScreen, admin: Client) -> None:
    script = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    made = answered(admin.create(script), 201)
    answered(admin.revoke(made["key_id"], script))
    page = opened("desktop").sign_in(admin.token)
    expect(page.get_by_role("link", name=script)).to_be_visible()
    page.get_by_role("link", name=script).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(script)
    assert "run" not in page.title().partition(" · ")[2]
    assert page.locator("main img, main script").count() == 0


def test_the_documentation_shows_itself_without_anything_from_elsewhere(
    opened: OpenScreen, server: Server
) -> None:
    page = opened("desktop").page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/docs")
    expect(page.get_by_role("heading", name="Keyledger")).to_be_visible()
    expect(page.get_by_text("/v1/keys/{key_id}/revoke")).to_be_visible()
    assert {url for url in asked if not url.startswith((f"{server.url}/", "data:"))} == set()


def test_no_other_page_has_the_console_in_a_frame(
    opened: OpenScreen, server: Server, admin: Client
) -> None:
    screen = opened("desktop")
    page = screen.sign_in(admin.token)
    page.route("**/frame", lambda route: route.fulfill(
        content_type="text/html", body=f"<iframe src='{server.url}/console/keys'></iframe>"
    ))  # fmt: skip
    page.goto(f"{server.url}/frame")
    page.wait_for_load_state("networkidle")
    assert "API keys" not in page.frames[1].content()
    refused = [error for error in screen.errors if "frame-ancestors" in error]
    assert refused
    screen.errors.clear()
