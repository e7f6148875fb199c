"""Add console sessions."""

import sqlalchemy as sa
from alembic import op

from projections.store.column_types import text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "console_sessions",
        sa.Column("value_sha256", sa.LargeBinary(32), primary_key=True),
        sa.Column("key_id", text(43), nullable=False),
        sa.Column("lookup_id", text(16), nullable=False),
        sa.Column("created_at", text(27), nullable=False),
        sa.Column("expires_at", text(27), nullable=False),
        sa.Column("used_at", text(27), nullable=False),
    )
