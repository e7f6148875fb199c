"""Read a key from a row of the key list."""

from datetime import datetime
from typing import Any

from projections.store.unreadable_rows import check_types, readable
from projections.views.key_fields import ListedKey, read_fields


def listed(row: Any, now: datetime) -> ListedKey:  # noqa: ANN401 - a row, or its like
    """Return a row of the key list, joined with its ``last_used_at``, as a key at a time.

    Raises:
        ProjectionInconsistent: the row cannot be read.
    """
    with readable("key_list or last_uses"):
        check_types(row, int, "position")
        values = read_fields(row)
        expires_at = values["expires_at"]
        if values["status"] == "active" and expires_at is not None and now >= expires_at:
            values["status"] = "expired"
        return ListedKey(position=row.position, **values)
