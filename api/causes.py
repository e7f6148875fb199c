"""Why something failed, in one line: what began the chain of errors that led to it."""


def first_cause(error: BaseException) -> str | None:
    """Return the message of the error that began the chain that led to this one, on one line.

    Drivers write theirs over several lines, with tabs.
    """
    cause = error.__cause__
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    return None if cause is None else " ".join(str(cause).split())
