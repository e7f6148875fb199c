"""What the forms about keys share: reading them, and showing them again with what was wrong."""

import re
from dataclasses import dataclass, field

from api.console.forms import CSRF_FIELD, Form
from api.http.problems import STATUSES
from domain.errors import Invalid, KeyNotFound, LedgerError, ScopeNotHeld
from domain.token_text import hide_tokens

_BETWEEN_SCOPES = re.compile(r"[\s,]+")
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_NOT_SHOWN_AGAIN = frozenset({CSRF_FIELD, "request"})
_UNAVAILABLE = 500


@dataclass(frozen=True, slots=True)
class KeyForm:
    """A form, empty or as it was filled in.

    Args:
        request: the name that makes what it asks for happen once.
        expiration: which choice of an end is ticked.
        fields: what was filled in.
        wrong: what is wrong with it, and in which field; of the whole form in none.
        status: of the page that shows it.
        version: version of the key that the form was made for; ``None`` for the current one.
        is_kept: whether the session had ended when the form was sent.
    """

    request: str = ""
    expiration: str = ""
    fields: dict[str, list[str]] = field(default_factory=dict)
    wrong: str | None = None
    wrong_field: str | None = None
    status: int = 200
    version: str | None = None
    is_kept: bool = False

    def text(self, name: str, otherwise: str = "") -> str:
        """Return what was filled in, or else what is there to begin with."""
        return hide_tokens(self.fields[name][0]) if name in self.fields else otherwise

    def has(self, name: str, value: str, *, otherwise: bool = False) -> bool:
        """Tell whether a value was ticked, or is to begin with."""
        return value in self.fields.get(name, []) if self.fields else otherwise

    def problem_of(self, name: str) -> str | None:
        """Return what is wrong with a field."""
        return self.wrong if self.wrong_field == name else None


def refill(form: Form, error: LedgerError, request: str = "") -> KeyForm:
    """Return a form as it was filled in, with what is wrong.

    Raises:
        LedgerError: it is not the form that is wrong: there is no such key, or the ledger cannot be
            asked.
    """
    status = STATUSES[type(error)][0]
    if status >= _UNAVAILABLE or isinstance(error, KeyNotFound):
        raise error
    wrong, wrong_field = str(error), None
    if isinstance(error, Invalid):
        wrong, wrong_field = error.message, error.field
    if isinstance(error, ScopeNotHeld):
        wrong_field = "scopes"
    fields = {name: values for name, values in form.fields.items() if name not in _NOT_SHOWN_AGAIN}
    return KeyForm(
        request,
        form.fields.get("expiration", [""])[0],
        fields,
        hide_tokens(wrong[:1].upper() + wrong[1:]),
        wrong_field,
        status,
    )


def chosen_scopes(form: Form) -> list[str]:
    """Return the scopes that are ticked, and those that were written freely."""
    written = _BETWEEN_SCOPES.split(form.text("more_scopes").strip())
    return list(dict.fromkeys([*form.texts("scope"), *filter(None, written)]))


def version_seen(form: Form) -> int | None:
    """Return the version of the key that the form was made for.

    Raises:
        Invalid: it is none.
    """
    version = form.text("version")
    if not _VERSION.fullmatch(version):
        raise Invalid("version", "open the page again, and resend the form")
    return int(version)
