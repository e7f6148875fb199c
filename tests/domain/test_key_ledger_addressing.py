"""Commands address a key of the caller's workspace, at the expected version."""

from collections.abc import Callable

import pytest

from domain.errors import KeyNotFound, VersionMismatch
from domain.key_ids import derived_uuid, to_key_id
from domain.key_ledger import Changes
from tests.domain.ledger_in_memory import Desk

NOBODY = to_key_id(derived_uuid("nobody"))
COMMANDS: dict[str, Callable[..., object]] = {
    "revoke": Desk.revoke,
    "rotate": Desk.rotate,
    "update": Desk.update,
}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@every_command
class TestEveryCommand:
    @pytest.mark.parametrize("absent", [NOBODY, "apikey_1", "", "\ud800"])
    def test_knows_no_key_that_is_not_there(
        self, desk: Desk, command: Callable[..., object], absent: str
    ) -> None:
        desk.create()

        with pytest.raises(KeyNotFound):
            command(desk, absent)

        assert desk.everything() == ["Created"]

    def test_knows_no_key_of_another_workspace(
        self, desk: Desk, command: Callable[..., object]
    ) -> None:
        hidden = desk.create(workspace="acme").key_id

        with pytest.raises(KeyNotFound) as refusal:
            command(desk, hidden, workspace="globex")
        with pytest.raises(KeyNotFound) as absence:
            command(desk, NOBODY, workspace="globex")

        assert str(refusal.value).replace(hidden, NOBODY) == str(absence.value)
        assert desk.everything() == ["Created"]

    def test_versions_of_another_workspaces_key_are_hidden(
        self, desk: Desk, command: Callable[..., object]
    ) -> None:
        hidden = desk.create(workspace="acme").key_id

        with pytest.raises(KeyNotFound):
            command(desk, hidden, workspace="globex", expected_version=7)

    @pytest.mark.parametrize("version", [0, 1, 3])
    def test_a_key_that_is_not_at_the_expected_version_is_unchanged(
        self, desk: Desk, command: Callable[..., object], version: int
    ) -> None:
        key_id = desk.create().key_id
        desk.update(key_id, Changes(name="first"))

        with pytest.raises(VersionMismatch, match=f"at version 2, not {version}"):
            command(desk, key_id, expected_version=version)

        assert desk.everything() == ["Created", "Renamed"]

    def test_is_done_to_a_key_at_the_expected_version(
        self, desk: Desk, command: Callable[..., object]
    ) -> None:
        key_id = desk.create().key_id

        command(desk, key_id, expected_version=1)

        assert desk.key(key_id).version == 2
