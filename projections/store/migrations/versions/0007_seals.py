"""Add seals of events and of rows that grant access, and the id of the secret behind them."""

import sqlalchemy as sa
from alembic import op

from projections.store.column_types import text

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for table in ("events", "key_digests", "console_sessions", "last_attestation"):
        op.add_column(table, sa.Column("seal", sa.LargeBinary(32), nullable=True))
    op.create_table(
        "ledger_secret",
        sa.Column("secret_id", text(16), primary_key=True),
        sa.Column("seal", sa.LargeBinary(32), nullable=False),
    )
