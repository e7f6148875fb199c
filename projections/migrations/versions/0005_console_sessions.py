"""Who is signed in to the console."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "console_sessions",
        sa.Column("value_sha256", sa.LargeBinary(32), primary_key=True),
        sa.Column("key_id", sa.String(43), nullable=False),
        sa.Column("lookup_id", sa.String(16), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("expires_at", sa.String(27), nullable=False),
        sa.Column("used_at", sa.String(27), nullable=False),
    )
