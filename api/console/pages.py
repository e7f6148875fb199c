"""Pages: rendered from templates, with what every one of them shows."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse

from api.console import words
from api.console.visitors import Visitor
from api.http.dependencies import ledger_of
from api.scope_catalogue import Catalogue
from domain.token_text import hide_tokens
from projections.views.key_fields import ListedKey

ROOT = "/console"
LONGEST_WORKSPACE = 63
LONGEST_ADDRESS = 2_000
"""Length of an address of the console to which signing in leads back."""
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the console, as the navigation shows it.

    Args:
        path: of its first page, below the console's root.
        scope: what a key needs to see it.
        for_root: whether it concerns all workspaces.
    """

    title: str
    path: str
    scope: str
    for_root: bool = False

    def is_open_to(self, visitor: Visitor) -> bool:
        """Tell whether a visitor may see it."""
        return visitor.may(self.scope) and (visitor.requester.is_root or not self.for_root)


SECTIONS = (
    Section("API keys", "/keys", "api-keys:read"),
    Section("Audit", "/audit", "audit:read"),
    Section("Projections", "/projections", "projections:read", for_root=True),
)


_CHANGES = (("rename", "Rename"), ("scopes", "Change scopes"))
_REVOKE = ("revoke", "Revoke")


@dataclass(frozen=True, slots=True)
class Pages:
    """The templates, and the files that the pages load.

    Args:
        files: style sheet, script and pictures by their names.
        files_version: changes with any of them, and is part of their addresses.
    """

    templates: Environment
    catalogue: Catalogue
    files: Mapping[str, bytes]
    files_version: str


def load_pages(catalogue: Catalogue) -> Pages:
    """Load all that pages are made of."""
    files = _files()
    digest = hashlib.sha256(b"".join(files.values())).hexdigest()
    return Pages(_templates(), catalogue, files, digest[:12])


@cache
def _templates() -> Environment:
    # Compiling takes long, and all apps of a process can share the result.
    templates = Environment(
        loader=PackageLoader("api.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters |= {
        "moment": words.moment,
        "relative": words.relative,
        "day": words.day,
        "actor": words.actor,
        "counted": words.counted,
        "fitting": words.fitting,
    }
    templates.globals["actions"] = actions
    return templates


@cache
def _files() -> Mapping[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(Path(__file__).with_name("static").iterdir())
        if path.suffix in MEDIA_TYPES
    }


def actions(key: ListedKey) -> Sequence[tuple[str, str]]:
    """Return what can be done with a key: the last part of the page's path, and its name."""
    if key.status == "revoked":
        return ()
    if key.status == "expired":
        return (_REVOKE,)
    rotate = () if key.rotated_to else (("rotate", "Rotate"),)
    return (("expiration", "Update expiration"), *rotate, *_CHANGES, _REVOKE)


def pages_of(request: Request) -> Pages:
    """Return the pages of the app."""
    return cast("Pages", request.app.state.console_pages)


def _typed_workspace(request: Request) -> str:
    typed = request.query_params.get("workspace", "")
    # No workspace has a longer name, and to search a long text for tokens takes time.
    return hide_tokens(typed) if len(typed) <= LONGEST_WORKSPACE else ""


def page(request: Request, template: str, status: int = 200, **shown: object) -> HTMLResponse:
    """Return a page.

    Args:
        template: the file of its template.
        shown: what it shows beside what every page shows.
    """
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    now = ledger_of(request).clock()
    content = (
        pages_of(request)
        .templates.get_template(template)
        .render(
            visitor=visitor,
            sections=[
                each for each in SECTIONS if visitor is not None and each.is_open_to(visitor)
            ],
            path=request.url.path.removeprefix(ROOT),
            link=linker(visitor),
            files=f"{ROOT}/static/{pages_of(request).files_version}",
            now=now,
            typed_workspace=_typed_workspace(request),
            **{"workspaces": (), "listing": {}, "kept_query": {}, **shown},
        )
    )
    return HTMLResponse(content, status)


def linker(visitor: Visitor | None) -> Callable[..., str]:
    """Return what makes addresses of the console, in the workspace that a visitor looks at."""
    elsewhere = visitor is not None and visitor.is_elsewhere
    where = {"workspace": visitor.workspace} if visitor is not None and elsewhere else {}

    def link(path: str, **query: Any) -> str:  # noqa: ANN401 - whatever can be written
        given = where | {name: value for name, value in query.items() if value not in (None, "")}
        if visitor is not None and given.get("workspace") == visitor.requester.acting_in(None):
            del given["workspace"]
        return f"{ROOT}{path}?{urlencode(given)}" if given else f"{ROOT}{path}"

    return link


def see(visitor: Visitor | None, path: str, **query: object) -> RedirectResponse:
    """Send the browser on to a page, by GET (RFC 9110, section 15.4.4)."""
    return RedirectResponse(linker(visitor)(path, **query), 303)
