"""Error messages about settings: the name of the variable or option, and what is allowed."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo

PREFIX = "KEYLEDGER_"

Fields = Mapping[str, FieldInfo]


def unknown_variable(name: str, fields: Fields) -> str:
    """Return the message about a variable that is not a setting, with the most similar name."""
    known = [PREFIX + field.upper() for field in fields]
    similar = difflib.get_close_matches(name.upper(), known, n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"the settings are {', '.join(known)}"
    return f"{name}: no such setting; {hint}"


def not_valid(error: ValidationError, fields: Fields, options: Collection[str] = ()) -> list[str]:
    """Return one message for each setting that is not valid.

    Args:
        error: Pydantic's error. Its input is not shown: a URL may contain a password.
        fields: the settings by name.
        options: names of the settings that came from options of the command line.
    """
    messages = []
    for each in error.errors(include_url=False, include_input=False):
        name = "_".join(map(str, each["loc"]))
        option = f"--{name.replace('_', '-')}"
        shown = option if name in options else f"{PREFIX}{name.upper()}"
        messages.append(f"{shown}: {_reason(each, fields.get(name))}")
    return messages


def _reason(error: Mapping[str, Any], field: FieldInfo | None) -> str:
    if field is None:
        return "no such setting"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return _allowed(field) or str(error["msg"])


def _allowed(field: FieldInfo) -> str | None:
    """Return what a number or a choice may be; ``None`` for other settings."""
    if get_origin(field.annotation) is Literal:
        return f"use one of {', '.join(get_args(field.annotation))}"
    types = {field.annotation, *get_args(field.annotation)}
    if not types & {int, float}:
        return None
    limits = []
    for limit in field.metadata:
        match limit:
            case Ge():
                limits.append(f"at least {limit.ge}")
            case Gt():
                limits.append(f"greater than {limit.gt}")
            case Le():
                limits.append(f"at most {limit.le}")
    kind = "a whole number" if int in types else "a number"
    return f"use {kind}, {' and '.join(limits)}"
