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
        why = "cannot write to standard error"
        if key_id is None:
            message = f"{why}, so that the token of the first key would be lost: no key was made"
        else:
            message = (
                f"the root key {key_id} was created, but its token could not be shown: {why}."
                " Create another: keyledger keys create --workspace root --name root --scopes '*';"
                f" then revoke this one: keyledger keys revoke {key_id} --workspace root"
            )
        raise LedgerUnavailable(message) from error
