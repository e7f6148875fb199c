"""Show the token of a ledger's first key."""

import sys

from domain.errors import LedgerUnavailable


def show_on_stderr(text: str, key_id: str | None = None) -> None:
    """Write a text to standard error, and verify that it was written.

    Args:
        key_id: the key whose token is in the text; ``None`` before it is created.

    Raises:
        LedgerUnavailable: it could not be written; the message says what to do.
    """
    try:
        # `None` if the process was started without standard error.
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError) as error:
        why = "standard error could not be written"
        if key_id is None:
            message = f"{why}, so that the token of the first key would be lost: no key was made"
        else:
            message = (
                f"the root key {key_id} was made, but its token could not be shown: {why}."
                " Make another by: keyledger keys create --workspace root --name root"
                f" --scopes '*'; then: keyledger keys revoke {key_id} --workspace root"
            )
        raise LedgerUnavailable(message) from error
