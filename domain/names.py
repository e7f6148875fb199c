"""The rules for what people type: names, workspaces, prefixes, reasons and comments."""

import re
import unicodedata

from domain.errors import Invalid

ROOT_WORKSPACE = "root"
DEFAULT_WORKSPACE = "default"
MAX_NAME_LENGTH = 120
MAX_REASON_LENGTH = 200
MAX_COMMENT_LENGTH = 2000

_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_TOKEN_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}", re.ASCII)
# Control characters, lone surrogates, separators of lines and paragraphs, and the marks that
# reverse the direction of a line: none can be shown safely in a log, a terminal or a page, and
# PostgreSQL cannot store the first two.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_DIRECTION_MARKS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def checked_name(name: str) -> str:
    """Return the name of a key without the blanks around it.

    Raises:
        Invalid: nothing is left, it is too long, or has characters that cannot be shown.
    """
    name = _checked_text("name", name.strip(), MAX_NAME_LENGTH)
    if not any(unicodedata.category(character)[0] in "LNPS" for character in name):
        raise Invalid("name", "give the key a name, such as payments-api")
    return name


def checked_reason(reason: str | None) -> str | None:
    """Return the reason for revoking, on one line; blank means none.

    Raises:
        Invalid: it is too long, or has characters that cannot be shown.
    """
    if reason is None:
        return None
    return _checked_text("reason", reason.strip(), MAX_REASON_LENGTH) or None


def checked_comment(comment: str | None) -> str | None:
    """Return a comment, which may have several lines; blank means none.

    Raises:
        Invalid: it is too long, or has characters that cannot be shown.
    """
    if comment is None:
        return None
    comment = comment.replace("\r\n", "\n")
    _checked_text("comment", comment.replace("\n", " ").replace("\t", " "), MAX_COMMENT_LENGTH)
    return comment.strip() or None


def checked_workspace(workspace: str) -> str:
    """Return the name of a workspace.

    Raises:
        Invalid: it breaks the grammar ``[a-z0-9][a-z0-9._-]{0,62}``.
    """
    if not _WORKSPACE.fullmatch(workspace):
        raise Invalid(
            "workspace", "start with a-z or 0-9 and use a-z 0-9 . _ -, at most 63 characters"
        )
    return workspace


def checked_token_prefix(prefix: str) -> str:
    """Return the prefix of a token.

    Raises:
        Invalid: it breaks the grammar ``[a-z][a-z0-9]{0,15}``.
    """
    if not _TOKEN_PREFIX.fullmatch(prefix):
        raise Invalid("prefix", "start with a-z and use a-z and 0-9, at most 16 characters")
    return prefix


def _checked_text(field: str, text: str, longest: int) -> str:
    if len(text) > longest:
        raise Invalid(field, f"use at most {longest} characters")
    for character in text:
        if character in _DIRECTION_MARKS or unicodedata.category(character) in _UNSAFE_CATEGORIES:
            raise Invalid(field, f"leave out the character U+{ord(character):04X}")
    return text
