"""The rule for every text of a request: it contains no token, unless the field is for one."""

from typing import Any

from pydantic import ValidationInfo

from domain.names import LEAVE_IT_OUT
from domain.token_text import MAX_CHECKED, contains_token


class _HoldsToken:
    """Marks the type of a field that is meant for a token."""


HOLDS_TOKEN = _HoldsToken()


def refuse_token(cls: Any, value: object, info: ValidationInfo) -> object:  # noqa: ANN401 - a model
    """Refuse a text, or a list or an object of texts, that contains a token.

    For use as a ``before`` validator of all fields of a model, so that a new field is checked
    without further code. A nested model checks its own fields.

    Raises:
        ValueError: there is a token in it, or it is longer than any field may be. The message does
            not contain the text.
    """
    if HOLDS_TOKEN in cls.model_fields[info.field_name].metadata:
        return value
    texts = _texts(value)
    if sum(map(len, texts)) > MAX_CHECKED:
        message = f"the text is too long: use at most {MAX_CHECKED} characters"
        raise ValueError(message)
    if any(map(contains_token, texts)):
        raise ValueError(LEAVE_IT_OUT)
    return value


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [each for each in value if isinstance(each, str)]
    return []
