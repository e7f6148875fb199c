"""A server that receives a token in every text keeps it neither in its log nor on disk."""

import re
from pathlib import Path
from typing import Any

import httpx

import api.console
from domain.tokens import mint
from tests.api.console.console_routes import CONSOLE_ROUTES
from tests.api.http.schemas.test_tokens_in_text import FIELDS, Field
from tests.domain.builders import a_random_source
from tests.domain.tokens_in_text import WAYS
from tests.system.clients import answered
from tests.system.processes import Server, Servers, run
from tests.system.secret_search import Search

TOKEN = mint("key", a_random_source(815)).reveal()
SEARCH = Search({"secret": TOKEN[20:].encode(), "in lower case": TOKEN[20:].lower().encode()})
HEADERS = ("X-Request-Id", "User-Agent", "X-Forwarded-For", "Referer", "Origin", "Cookie", "Via")
_TEMPLATES = Path(api.console.__file__).parent / "templates"
CONSOLE_FIELDS = {
    name
    for template in _TEMPLATES.glob("*.html")
    for name in re.findall(r'name="([a-z_]+)"', template.read_text())
} - {"csrf_token"}


def test_no_token_that_was_sent_in_a_text_is_in_the_log_or_on_the_disk(servers: Servers) -> None:
    server = servers.start()
    client = server.client()
    key_id = answered(client.create("payments-api"), 201)["key_id"]

    for field in FIELDS:
        for write in (WAYS["as it is"], WAYS["in lower case"]):
            send(client.http, field, key_id, write(TOKEN))
    for header in HEADERS:
        client.http.get("/v1/keys", headers={header: TOKEN})
        client.http.get(f"/{TOKEN}", headers={header: TOKEN})
    sent = use_the_console(server, key_id)
    ran = run(servers.data_dir, "keys", "create", "--name", f"old {TOKEN}", "--scopes", "a:b")

    assert sent > 100
    assert ran.code == 2
    assert not SEARCH.found_in((ran.output + ran.errors).encode())
    assert SEARCH.found_in_tables(servers.data_dir) == {}
    assert SEARCH.found_in_files(servers.data_dir) == {}
    server.stop()
    assert server.log.count("\n") > 200
    assert not SEARCH.found_in(server.log_path.read_bytes())
    assert SEARCH.found_in_files(servers.data_dir) == {}


def send(client: httpx.Client, field: Field, key_id: str, text: str) -> None:
    """Send a request whose only fault is what a field says."""
    path = field.path.format(key_id=key_id, name="key_list", tile="0/000")
    more: dict[str, Any] = {}
    if field.place == "body":
        complete = {"name": "n", "scopes": ["a:b"]} if path == "/v1/keys" else {}
        complete |= {"token": "t"} if path == "/v1/verify" else {}
        more["json"] = complete | {field.name: [text] if field.name == "scopes" else text}
    else:
        more["headers" if field.place == "header" else "params"] = {field.name: text}
    answer = client.request(field.method, path, **more)
    assert not SEARCH.found_in(answer.content)


def use_the_console(server: Server, key_id: str) -> int:
    """Put the token into each field of each form and address; return the number of answers."""
    sent = 0
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as browser:
        signed_in = browser.post("/console/sign-in", data={"token": server.root_token or ""})
        assert signed_in.status_code == 303
        page = browser.get("/console/keys").text
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert found
        for route in CONSOLE_ROUTES:
            path = route.path.format(
                key_id=key_id, name="key_list", leaf_index=0, version="1", tile="0/000"
            )
            if path.endswith("/sign-out"):
                continue
            if route.method == "GET":
                browser.get(path, params=dict.fromkeys(CONSOLE_FIELDS, TOKEN))
            for name in CONSOLE_FIELDS if route.fields else ():
                fields = {"csrf_token": found[1], **dict(route.fields), name: TOKEN}
                browser.post(path, params={"workspace": "default"}, data=fields)
                sent += 1
    return sent
