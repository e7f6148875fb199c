"""The limit on the length of a request's query."""

from typing import TYPE_CHECKING

from api.http.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LONGEST_QUERY = 8_192
"""Maximum size in bytes, far above what all parameters of a route need together."""


class QueryLimit:
    """Middleware that rejects a query that is too long before anything parses it.

    Parsing a query and describing each error in it costs far more than receiving it.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request."""
        if scope["type"] != "http" or len(scope["query_string"]) <= LONGEST_QUERY:
            await self._app(scope, receive, send)
            return
        scope["state"]["outcome"] = "TARGET_TOO_LONG"
        answer = problem(
            414,
            "TARGET_TOO_LONG",
            "URI Too Long",
            f"the query is too long: send at most {LONGEST_QUERY} bytes after `?`",
            request_id=scope["state"]["request_id"],
        )
        # Error pages must not parse the query again.
        scope["query_string"] = b""
        await answer(scope, receive, send)
