"""All routes of the console, and what each requires of the key that is signed in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConsoleRoute:
    """A route of the console.

    Args:
        scopes: required scopes; ``None`` for a route that is open to everybody.
        fields: fields of a valid form, except the session's CSRF token.
        for_root: whether only keys of the root workspace may use it.
    """

    method: str
    path: str
    scopes: tuple[str, ...] | None
    fields: tuple[tuple[str, str], ...] = ()
    for_root: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


READ = ("api-keys:read",)
WRITE = ("api-keys:read", "api-keys:write")
AUDIT = ("audit:read",)
_KEY = "/console/keys/{key_id}"
_END = (("expiration", "never"), ("version", "1"))
_NEW = (("name", "new"), ("scope", "mcp:read"), ("expiration", "30"), ("request", "once"))
_REVOKE = (("reason", "Leaked"), ("understood", "yes"))

CONSOLE_ROUTES = (
    ConsoleRoute("GET", "/", None),
    ConsoleRoute("GET", "/console/static/{version}/{name}", None),
    ConsoleRoute("GET", "/console/sign-in", None),
    ConsoleRoute("POST", "/console/sign-in", None),
    ConsoleRoute("GET", "/console", ()),
    ConsoleRoute("POST", "/console/sign-out", ()),
    ConsoleRoute("GET", "/console/keys", READ),
    ConsoleRoute("GET", "/console/keys/{key_id}", READ),
    ConsoleRoute("GET", "/console/keys/new", WRITE),
    ConsoleRoute("POST", "/console/keys/new", WRITE, _NEW),
    ConsoleRoute("GET", f"{_KEY}/rename", WRITE),
    ConsoleRoute("POST", f"{_KEY}/rename", WRITE, (("name", "renamed"), ("version", "1"))),
    ConsoleRoute("GET", f"{_KEY}/scopes", WRITE),
    ConsoleRoute("POST", f"{_KEY}/scopes", WRITE, (("scope", "mcp:write"), ("version", "1"))),
    ConsoleRoute("GET", f"{_KEY}/expiration", WRITE),
    ConsoleRoute("POST", f"{_KEY}/expiration", WRITE, _END),
    ConsoleRoute("GET", f"{_KEY}/rotate", WRITE),
    ConsoleRoute(
        "POST", f"{_KEY}/rotate", WRITE, (("grace", "0"), ("version", "1"), ("request", "once"))
    ),
    ConsoleRoute("GET", f"{_KEY}/revoke", WRITE),
    ConsoleRoute("POST", f"{_KEY}/revoke", WRITE, _REVOKE),
    ConsoleRoute("GET", "/console/audit", AUDIT),
    ConsoleRoute("POST", "/console/audit/verify", AUDIT, for_root=True),
    ConsoleRoute("GET", "/console/audit/entries/{leaf_index}", AUDIT),
    ConsoleRoute("GET", "/console/audit/events.csv", AUDIT),
    ConsoleRoute("GET", "/console/audit/events.ndjson", AUDIT),
    ConsoleRoute("GET", "/console/audit/checkpoint.txt", AUDIT),
    ConsoleRoute("GET", "/console/projections", ("projections:read",), for_root=True),
    ConsoleRoute(
        "POST",
        "/console/projections/{name}/rebuild",
        ("projections:read", "projections:write"),
        for_root=True,
    ),
)
"""A test fails if a route is missing here, or if one here does not exist."""
