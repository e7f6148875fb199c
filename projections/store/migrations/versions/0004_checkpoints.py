"""Add the signed checkpoints of the audit log."""

import sqlalchemy as sa
from alembic import op

from projections.store.column_types import big_integer, text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("origin", text(255), primary_key=True),
        sa.Column(
            "size",
            big_integer,
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("note", text(), nullable=False),
        sa.Column("signed_at", text(27), nullable=False),
    )
