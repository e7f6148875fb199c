"""The root cause of an error, on one line."""


def first_cause(error: BaseException) -> str | None:
    """Return the message of the first error in a chain of causes, on one line.

    Drivers' messages have several lines, with tabs.
    """
    cause = error.__cause__
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    return None if cause is None else " ".join(str(cause).split())
