"""Validate text from people: names, workspaces, prefixes, reasons and comments."""

import re
import unicodedata

from domain.errors import Invalid
from domain.invisible import first_invisible, shows_something
from domain.token_text import MAX_CHECKED, contains_token

ROOT_WORKSPACE = "root"
DEFAULT_WORKSPACE = "default"
EVERY_WORKSPACE = "*"
"""What a list is asked for instead of a workspace, to list all of them."""
MAX_NAME_LENGTH = 120
MAX_REASON_LENGTH = 200
MAX_COMMENT_LENGTH = 2000

_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_TOKEN_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}", re.ASCII)
# Control characters, lone surrogates, and line and paragraph separators: none of them can be shown
# safely in a log, a terminal or a page, and PostgreSQL cannot store the first two. Invisible
# characters, which include all controls of text direction, are in `domain.invisible`.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
LEAVE_IT_OUT = (
    "the text contains a token, or most of one: leave it out. A token belongs only into the field"
    " where it is verified. If it is in use, rotate or revoke its key"
)
"""The error message for a text that contains a token."""


def checked_name(name: str) -> str:
    """Return a key's name without surrounding whitespace.

    Raises:
        Invalid: it is empty, too long, or has characters that cannot be shown.
    """
    name = _checked_text("name", name.strip(), MAX_NAME_LENGTH)
    if not shows_something(name):
        raise Invalid("name", "the name is empty: use a name such as payments-api")
    return name


def checked_reason(reason: str | None) -> str | None:
    """Return a reason without surrounding whitespace; ``None`` if it is blank.

    Raises:
        Invalid: it is too long, or has characters that cannot be shown.
    """
    if reason is None:
        return None
    return _checked_text("reason", reason.strip(), MAX_REASON_LENGTH) or None


def checked_comment(comment: str | None) -> str | None:
    """Return a comment, which may have several lines; ``None`` if it is blank.

    Raises:
        Invalid: it is too long, or has characters that cannot be shown.
    """
    if comment is None:
        return None
    comment = comment.replace("\r\n", "\n")
    _checked_text("comment", comment.replace("\n", " ").replace("\t", " "), MAX_COMMENT_LENGTH)
    return comment.strip() or None


def checked_workspace(workspace: str) -> str:
    """Return a valid workspace name.

    Raises:
        Invalid: it does not match ``[a-z0-9][a-z0-9._-]{0,62}``.
    """
    if not _WORKSPACE.fullmatch(workspace):
        raise Invalid(
            "workspace",
            "not a valid name: start with a-z or 0-9, and use a-z 0-9 . _ -, at most 63 characters",
        )
    return without_token("workspace", workspace)


def checked_token_prefix(prefix: str) -> str:
    """Return a valid token prefix.

    Raises:
        Invalid: it does not match ``[a-z][a-z0-9]{0,15}``.
    """
    if not _TOKEN_PREFIX.fullmatch(prefix):
        raise Invalid(
            "prefix",
            "not a valid prefix: start with a-z, and use a-z and 0-9, at most 16 characters",
        )
    return prefix


def without_token(field: str, text: str) -> str:
    """Return a text that may be stored, logged or shown.

    Raises:
        Invalid: it contains a token, or is longer than any text may be.
    """
    if len(text) > MAX_CHECKED:
        raise Invalid(field, f"the text is too long: use at most {MAX_CHECKED} characters")
    if contains_token(text):
        raise Invalid(field, LEAVE_IT_OUT)
    return text


def _checked_text(field: str, text: str, longest: int) -> str:
    if len(text) > longest:
        raise Invalid(field, f"the text is too long: use at most {longest} characters")
    for character in text:
        if unicodedata.category(character) in _UNSAFE_CATEGORIES:
            raise _leave_out(field, character)
    invisible = first_invisible(text)
    if invisible is not None:
        raise _leave_out(field, invisible)
    return without_token(field, text)


def _leave_out(field: str, character: str) -> Invalid:
    return Invalid(field, f"the character U+{ord(character):04X} is not allowed: leave it out")
