"""Dependencies of routes: the ledger, and a JSON body with one meaning."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, cast

from fastapi import Request, Response

from api.composition import OpenLedger
from api.http.work import WorkRoute
from projections.auth.verification import TokenVerification


def ledger_of(request: Request) -> OpenLedger:
    """Return the ledger of the app."""
    return cast("OpenLedger", request.app.state.ledger)


def verification_of(request: Request) -> TokenVerification:
    """Return the token verification of the app."""
    return cast("TokenVerification", request.app.state.verification)


class StrictRequest(Request):
    """A request whose JSON body is parsed strictly.

    Python accepts duplicate names (the last one wins), ``NaN``, and UTF-16 besides UTF-8. A proxy
    that has checked the request may have read it differently.
    """

    async def json(self) -> Any:  # noqa: ANN401 - as in Starlette
        """Parse the body.

        Raises:
            json.JSONDecodeError: it is not strict JSON.
            ValueError: it is not UTF-8, or has a number that is too long.
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
    """A route that reads its body with `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, wrapped."""
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
