"""A complete FastAPI application that accepts requests with a valid key, by guard.py beside it.

Needs fastapi, httpx and uvicorn. GUARD_TOKEN is the token of a key with the scope api-keys:verify:

    GUARD_TOKEN=… uvicorn guarded_app:app --port 3000
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Security
from guard import Guard, Key, key_of_request  # type: ignore[import-not-found]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep connections to Keyledger while the application runs."""
    url = os.environ.get("GUARD_KEYLEDGER", "http://127.0.0.1:8080")
    async with Guard(url, os.environ["GUARD_TOKEN"]) as guard:
        app.state.guard = guard
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/tools")
async def tools(
    key: Annotated[Key, Security(key_of_request, scopes=["mcp:read"])],
) -> dict[str, str]:
    """Answer a request whose key has the scope mcp:read."""
    return {"key_id": key.key_id, "workspace": key.workspace}
