"""Programs that tests drive, as a user's machine may not have them."""

import os

import pytest


def needs(program: str | None, package: str) -> pytest.MarkDecorator:
    """Skip tests where a program is missing; in CI, which installs it, they are to fail instead.

    Args:
        program: where it was found; ``None`` if it was not.
        package: Debian's, which has it.
    """
    missing = program is None and "CI" not in os.environ
    return pytest.mark.skipif(
        missing, reason=f"{package} is not on this machine (Debian: apt-get install {package})"
    )
