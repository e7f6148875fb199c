"""Queries of pages: read so that a wrong value is shown at its field and the others are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams

from api.http.problems import validation_problems
from domain.errors import Invalid
from domain.token_text import hide_tokens

Q = TypeVar("Q", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Asked(Generic[Q]):
    """A query as somebody typed it.

    Args:
        query: the values that are valid.
        typed: what the fields with an error contain.
        wrong: the error of each field that has one.
    """

    query: Q
    typed: Mapping[str, str]
    wrong: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return the content of a field."""
        value = self.typed.get(name) or getattr(self.query, _attribute(self.query, name), None)
        return "" if value is None else str(value)

    def refused(self, error: Invalid) -> "Asked[Q]":
        """Return the query without a value that turned out not to be valid."""
        typed = {error.field: self.text(error.field)}
        message = hide_tokens(_sentence(error.message))
        query = self.query.model_copy(update={_attribute(self.query, error.field): None})
        return Asked(query, {**self.typed, **typed}, {**self.wrong, error.field: message})


def read_query(model: type[Q], params: QueryParams) -> Asked[Q]:
    """Read the query of an address; the values that are not valid are left out of it."""
    given = dict(params)
    try:
        return Asked(model.model_validate(given), {}, {})
    except ValidationError as error:
        errors = error.errors()
    refused = {str(each["loc"][0]) for each in errors}
    query = model.model_validate({name: given[name] for name in given.keys() - refused})
    known = refused & {field.alias or name for name, field in model.model_fields.items()}
    typed = {name: hide_tokens(given[name]) for name in given.keys() & known}
    in_query = [{**each, "loc": ("query", *each["loc"])} for each in errors]
    problems = validation_problems(RequestValidationError(in_query))
    wrong = {each["field"]: hide_tokens(_sentence(each["message"])) for each in problems}
    return Asked(query, typed, wrong)


def _attribute(query: BaseModel, name: str) -> str:
    """Return the attribute of a parameter, whose name may be reserved in Python."""
    fields = type(query).model_fields.items()
    return next((each for each, field in fields if field.alias == name), name)


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:]
