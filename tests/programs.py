"""Programs that tests need and that may not be installed."""

import os

import pytest


def needs(program: str | None, package: str) -> pytest.MarkDecorator:
    """Skip tests if a program is missing; fail instead in CI, which installs it.

    Args:
        program: its path; ``None`` if it was not found.
        package: Debian package that contains it.
    """
    missing = program is None and "CI" not in os.environ
    return pytest.mark.skipif(
        missing, reason=f"{package} is not on this machine (Debian: apt-get install {package})"
    )
