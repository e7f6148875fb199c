"""A row that cannot be decoded is answered with 503 and a code, never with 500."""

import pytest

from tests.api.served import Api
from tests.raw_sql import sql

pytestmark = pytest.mark.only_on("sqlite")

ROUTES = (
    "/v1/keys?workspace=root",
    "/v1/events?workspace=*",
    "/v1/projections",
    "/readyz",
)
VALUES = ("x'ff00'", "'no time, no JSON'", "CAST(x'ff' AS TEXT)", "7", "'2026-99-99T'")
COLUMNS = (
    ("key_list", "scopes"),
    ("key_list", "created_at"),
    ("key_list", "expires_at"),
    ("projection_states", "completed_at"),
    ("entries", "entry"),
)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_row_that_cannot_be_decoded_is_no_internal_error(
    api: Api, table: str, column: str, value: str
) -> None:
    sql(api.address, f"UPDATE {table} SET {column} = {value}")  # noqa: S608 - from above
    statuses = {route: api.get(route).status_code for route in ROUTES}
    assert set(statuses.values()) <= {200, 503}, statuses
    assert 503 in statuses.values(), statuses
