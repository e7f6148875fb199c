"""The signed checkpoints of the audit trail."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("origin", sa.String(255), primary_key=True),
        sa.Column(
            "size",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("signed_at", sa.String(27), nullable=False),
    )
