"""What every route needs of its request: the ledger, and a body that means one thing."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, cast

from fastapi import Request, Response

from api.composition import OpenLedger
from api.http.work import WorkRoute
from projections.auth.verification import TokenVerification


def ledger_of(request: Request) -> OpenLedger:
    """Return the ledger that the app serves."""
    return cast("OpenLedger", request.app.state.ledger)


def verification_of(request: Request) -> TokenVerification:
    """Return the token verification of the app."""
    return cast("TokenVerification", request.app.state.verification)


class StrictRequest(Request):
    """A request whose JSON says everything once, in values that JSON has.

    Python reads ``{"a": 1, "a": 2}`` as the second, ``NaN`` as a number and UTF-16 as well as
    UTF-8; whoever checked the request before us may have read it otherwise.
    """

    async def json(self) -> Any:  # noqa: ANN401 - as in Starlette
        """Parse the body.

        Raises:
            json.JSONDecodeError: it is no JSON, or not strictly.
            ValueError: it is not in UTF-8, or has a number that is too long.
        """
        try:
            return json.loads(
                (await self.body()).decode(),
                object_pairs_hook=_without_repetition,
                parse_constant=_refuse_constant,
            )
        except RecursionError:
            raise json.JSONDecodeError("nested too deeply", "", 0) from None


class StrictRoute(WorkRoute):
    """A route that reads its body as a `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler of the route."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise json.JSONDecodeError("a name occurs twice in one object", "", 0)
    return values


def _refuse_constant(_constant: str) -> NoReturn:
    raise json.JSONDecodeError("JSON has no NaN and no Infinity", "", 0)
