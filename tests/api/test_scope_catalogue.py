"""The scope catalogue is a replaceable file, and is refused if it is invalid."""

from pathlib import Path

import pytest

from api.scope_catalogue import offered, read_catalogue
from api.settings import SettingsError, read_settings
from domain import scopes
from tests.api.console.visits import Visit, words_in
from tests.api.served import NewLedger, served
from tests.conftest import SettableClock
from tests.engines import settings_of

OTHER = """
[billing]
title = "Money"
read = "See <invoices>"
refund = "Give money back"

[hooks]
"*" = "Everything about hooks"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "scopes.toml"
    path.write_text(OTHER)
    return path


def test_the_catalogue_has_the_scopes_of_all_endpoints() -> None:
    own = offered(read_catalogue(None))
    assert own >= {
        "api-keys:read", "api-keys:write", "api-keys:verify", "projections:read",
        "projections:write", "audit:read",
    }  # fmt: skip
    assert scopes.checked(own)


def test_another_process_takes_over(
    path: Path, new_ledger: NewLedger, tmp_path: Path, clock: SettableClock
) -> None:
    settings = settings_of(new_ledger.copied_to(tmp_path / "data"), scope_catalogue=path)
    with served(settings, new_ledger.root, clock) as api:
        page = Visit.signed_in(api, api.root).get("/console/keys/new")
    assert 'value="billing:refund"' in page.text
    assert 'value="hooks:*"' in page.text
    assert "api-keys:write" not in page.text
    words = words_in(page)
    assert "Money" in words
    assert "See &lt;invoices&gt;" in words
    assert "hooks hooks:*" in words


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("not toml", "cannot be read"),
        ("billing = 1", "[billing]"),
        ("[billing]\nread = 1", "[billing]"),
        ('[Billing]\nread = "x"', "[Billing]"),
        ("[billing]\n", "[billing]"),
    ],
)
def test_an_invalid_catalogue_stops_the_program_with_the_reason(
    content: str | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "scopes.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        read_settings(scope_catalogue=path)
    assert str(caught.value).startswith("--scope-catalogue: ")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
