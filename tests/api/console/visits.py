"""Visits to the console with a browser's cookies and forms, but without a browser."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

from fastapi.testclient import TestClient
from httpx2 import Response

from tests.api.served import SOURCE, Api, Key

SIGN_IN = "/console/sign-in"
HERE = "http://testserver"
BEHIND_TLS = "https://testserver"

Fields = dict[str, list[str]]


@dataclass
class SeenForm:
    """A form of a page: its target and its current values."""

    action: str
    method: str
    fields: Fields = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[SeenForm] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(SeenForm(given["action"], given["method"]))
        if tag != "input" or "name" not in given or "disabled" in given:
            return
        if given.get("type") in ("checkbox", "radio") and "checked" not in given:
            return
        self.forms[-1].fields.setdefault(given["name"], []).append(given.get("value", ""))


def forms_in(answer: Response) -> list[SeenForm]:
    parser = _Forms()
    parser.feed(answer.text)
    return parser.forms


def form_in(answer: Response, ending: str) -> SeenForm:
    """Return the form whose target ends in this text."""
    (form,) = [each for each in forms_in(answer) if urlsplit(each.action).path.endswith(ending)]
    return form


class Visit:
    """A browser with cookies of its own."""

    def __init__(self, api: Api, *, base_url: str = HERE) -> None:
        self.client = TestClient(
            api.app,
            base_url=base_url,
            raise_server_exceptions=False,
            follow_redirects=False,
            client=(SOURCE, 50_000),
        )
        self.base_url = base_url

    @classmethod
    def signed_in(cls, api: Api, key: Key, *, base_url: str = HERE) -> "Visit":
        visit = cls(api, base_url=base_url)
        assert visit.sign_in(key.token).status_code == 303
        return visit

    @property
    def cookie(self) -> str:
        """The value of the session's cookie."""
        (value,) = self.client.cookies.values()
        return str(value)

    def get(self, path: str, **request: Any) -> Response:  # noqa: ANN401 - as in httpx
        return self.client.get(path, **request)

    def post(self, path: str, fields: Mapping[str, str | list[str]], **request: Any) -> Response:  # noqa: ANN401
        """Send a form as one of our pages would."""
        headers = {"Sec-Fetch-Site": "same-origin", "Origin": self.base_url}
        headers |= request.pop("headers", {})
        return self.client.post(path, data=fields, headers=headers, **request)

    def sign_in(self, token: str, query: str = "") -> Response:
        return self.post(f"{SIGN_IN}{query}", {"token": token})

    def fill_in(self, path: str, **filled: str | list[str]) -> Response:
        """Open a page, fill in its form and send it."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        form = form_in(answer, urlsplit(path).path)
        given = {
            name: [value] if isinstance(value, str) else value for name, value in filled.items()
        }
        return self.post(form.action, form.fields | given)

    def csrf_token(self) -> str:
        """Return the CSRF token of the session's forms."""
        return form_in(self.get("/console/keys"), "/sign-out").fields["csrf_token"][0]

    def follow(self, answer: Response) -> Response:
        assert answer.status_code == 303, answer.text
        return self.get(urljoin(self.base_url, answer.headers["Location"]))

    def is_signed_in(self) -> bool:
        return not leads_to_sign_in(self.get("/console"))


def leads_to_sign_in(answer: Response) -> bool:
    if answer.status_code == 401:
        return '<main id="content" class="sign-in">' in answer.text
    location = answer.headers.get("Location", "")
    return answer.status_code == 303 and urlsplit(location).path == SIGN_IN


def words_in(answer: Response) -> str:
    """Return the text of a page without its tags."""
    text = re.sub(r"<[^>]*>", " ", answer.text)
    return re.sub(r"\s+", " ", text).strip()


def shown_token(answer: Response) -> str | None:
    match = re.search(r">([a-z][a-z0-9]*_[0-9A-Za-z]{65})<", answer.text)
    return match and match[1]
