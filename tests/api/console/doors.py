"""All the doors of the console, and what each demands of the key that is signed in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Door:
    """A route of the console.

    Args:
        scopes: what it demands; ``None`` of a door that is open to everybody.
        fields: what a form says that lacks nothing, beside its session's token.
        for_root: whether it is for keys of the root workspace alone.
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

DOORS = (
    Door("GET", "/", None),
    Door("GET", "/console/static/{version}/{name}", None),
    Door("GET", "/console/sign-in", None),
    Door("POST", "/console/sign-in", None),
    Door("GET", "/console", ()),
    Door("POST", "/console/sign-out", ()),
    Door("GET", "/console/keys", READ),
    Door("GET", "/console/keys/{key_id}", READ),
    Door("GET", "/console/keys/new", WRITE),
    Door("POST", "/console/keys/new", WRITE, _NEW),
    Door("GET", f"{_KEY}/rename", WRITE),
    Door("POST", f"{_KEY}/rename", WRITE, (("name", "renamed"), ("version", "1"))),
    Door("GET", f"{_KEY}/scopes", WRITE),
    Door("POST", f"{_KEY}/scopes", WRITE, (("scope", "mcp:write"), ("version", "1"))),
    Door("GET", f"{_KEY}/expiration", WRITE),
    Door("POST", f"{_KEY}/expiration", WRITE, _END),
    Door("GET", f"{_KEY}/rotate", WRITE),
    Door("POST", f"{_KEY}/rotate", WRITE, (("grace", "0"), ("version", "1"), ("request", "once"))),
    Door("GET", f"{_KEY}/revoke", WRITE),
    Door("POST", f"{_KEY}/revoke", WRITE, _REVOKE),
    Door("GET", "/console/audit", AUDIT),
    Door("POST", "/console/audit/verify", AUDIT, for_root=True),
    Door("GET", "/console/audit/entries/{leaf_index}", AUDIT),
    Door("GET", "/console/audit/events.csv", AUDIT),
    Door("GET", "/console/audit/events.ndjson", AUDIT),
    Door("GET", "/console/audit/checkpoint.txt", AUDIT),
    Door("GET", "/console/projections", ("projections:read",), for_root=True),
    Door(
        "POST",
        "/console/projections/{name}/rebuild",
        ("projections:read", "projections:write"),
        for_root=True,
    ),
)
"""A route that is not among them, or one that is not there, makes a test fail."""
