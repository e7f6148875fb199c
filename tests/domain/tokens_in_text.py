"""The forms in which a token may occur in a text."""

import base64
import html
from collections.abc import Callable
from urllib.parse import quote

Way = Callable[[str], str]

WAYS: dict[str, Way] = {
    "as it is": str,
    "without its prefix": lambda token: token[token.index("_") + 1 :],
    "with another prefix": lambda token: "blnk2" + token[token.index("_") :],
    "in upper case": str.upper,
    "in lower case": str.lower,
    "cut off": lambda token: token[:60],
    "with a wrong checksum": lambda token: token[:-1] + ("a" if token[-1] != "a" else "b"),
    "inside other letters": lambda token: f"x{token}y",
    "without its prefix inside other letters": lambda token: f"xx{token[4:]}yy",
    "in quotes": lambda token: f'"{token}"',
    "with a percent sign for its underscore": lambda token: token.replace("_", "%5F"),
    "percent-encoded": lambda token: "".join(f"%{ord(each):02x}" for each in token),
    "percent-encoded twice": lambda token: quote(token.replace("_", "%5F"), safe=""),
    "with an HTML reference": lambda token: html.escape(token).replace("_", "&lowbar;"),
    "with a JSON escape": lambda token: token.replace("_", "\\u005f"),
    "in base64": lambda token: base64.b64encode(token.encode()).decode(),
    "as a password of HTTP Basic": lambda token: (
        "Basic " + base64.b64encode(b"client:" + token.encode()).decode()
    ),
    "in base64 for addresses": lambda token: base64.urlsafe_b64encode(
        b"k" + token.encode()
    ).decode(),
    "in hexadecimal": lambda token: token.encode().hex(),
    "with a space in it": lambda token: f"{token[:30]} {token[30:]}",
    "with hyphens in it": lambda token: "-".join((token[:20], token[20:40], token[40:])),
    "in full-width letters": lambda token: "".join(chr(ord(each) + 0xFEE0) for each in token),
}
"""Transformations of a token with the prefix ``key``."""
