"""Add the time of each key's last use."""

import sqlalchemy as sa
from alembic import op

from projections.store.column_types import text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "last_uses",
        sa.Column("key_id", text(43), primary_key=True),
        sa.Column("used_at", text(27), nullable=False),
        # The key is most of a row, so one B-tree instead of two halves the lookups.
        sqlite_with_rowid=False,
    )
