"""Sign-in to the console through real proxies, including proxies that change Host."""

import html
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.programs import needs
from tests.system.processes import Server, servers_in
from tests.system.proxies import CADDY, HAPROXY, Proxy, nginx_around, program

# Nothing of this depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

GATEWAYS = Path(__file__).parents[2] / "docs" / "gateways.md"
_NGINX = """
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
"""
_LOCATION = "location / {{ proxy_pass http://{upstream}; {more} }}"


def documented(upstream: str) -> str:
    """Return the location block of the documentation, for a server elsewhere."""
    (block,) = re.findall(r"```nginx\n(.*?)```", GATEWAYS.read_text(), re.DOTALL)
    assert block.count("127.0.0.1:8080") == 1
    return str(block).replace("127.0.0.1:8080", upstream)


def nginx(more: str | None, folder: Path, port: int, upstream: str) -> str:
    """Return a configuration for nginx: with these lines, or with those of the documentation."""
    location = (
        documented(upstream) if more is None else _LOCATION.format(upstream=upstream, more=more)
    )
    return nginx_around(folder, _NGINX.format(port=port, location=location))


DOCUMENTED = Proxy("nginx-as-documented", "nginx", partial(nginx, None))
NAMING_THE_UPSTREAM = Proxy("nginx-alone", "nginx", partial(nginx, ""))
WITHOUT_THE_PORT = Proxy("nginx-host", "nginx", partial(nginx, "proxy_set_header Host $host;"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers_in(tmp_path_factory.mktemp("console")) as servers:
        yield servers.start(trusted_proxies="127.0.0.1")


def sign_in(proxy: Proxy, server: Server, folder: Path) -> httpx.Response:
    """Send the form of the sign-in page as a browser does on plain HTTP: with Origin alone."""
    with (
        proxy.running(folder / "proxy", server.url) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as browser,
    ):
        assert browser.get("/console/sign-in").status_code == 200
        fields = {"token": server.root_token or ""}
        answer = browser.post("/console/sign-in", data=fields, headers={"Origin": url})
        if answer.status_code == 303:
            assert browser.get("/console/keys").status_code == 200
        return answer


def each(*proxies: Proxy) -> pytest.MarkDecorator:
    """Run a test with each proxy whose program is on this machine."""
    parameters = [
        pytest.param(proxy, id=proxy.name, marks=needs(program(proxy.program), proxy.program))
        for proxy in proxies
    ]
    return pytest.mark.parametrize("proxy", parameters)


@each(DOCUMENTED, HAPROXY, CADDY)
def test_a_proxy_that_passes_on_host_lets_people_sign_in(
    proxy: Proxy, server: Server, tmp_path: Path
) -> None:
    assert sign_in(proxy, server, tmp_path).status_code == 303


@each(NAMING_THE_UPSTREAM, WITHOUT_THE_PORT)
def test_a_refusal_behind_a_proxy_that_changes_host_says_what_to_set(
    proxy: Proxy, server: Server, tmp_path: Path
) -> None:
    answer = sign_in(proxy, server, tmp_path)

    assert answer.status_code == 403
    page = html.unescape(answer.text)
    assert "proxy_set_header Host $http_host" in page
    assert "docs/gateways.md" in page
    logged = [line for line in server.log_lines if line["event"] == "form_of_another_origin"]
    assert logged[-1]["origin"] != f"http://{logged[-1]['host']}"
    assert str(answer.request.url.netloc.decode()) in logged[-1]["origin"]
