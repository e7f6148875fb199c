"""A token is shown once, to the creator of the key, and appears nowhere else."""

from collections.abc import Iterator

import pytest

from tests.engines import address_of
from tests.raw_sql import raw
from tests.system.complete_run import Everything, run_everything
from tests.system.ledgers import SOUND, differences
from tests.system.processes import servers_in
from tests.system.secret_search import Search


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    folder = tmp_path_factory.mktemp("everything")
    (folder / "temporary").mkdir()
    with pytest.MonkeyPatch.context() as environment, servers_in(folder) as servers:
        environment.setenv("TMPDIR", str(folder / "temporary"))
        yield run_everything(servers)


@pytest.fixture(scope="module")
def secrets(everything: Everything) -> Search:
    """Look for the secret part of each token; what comes before it is public."""
    return Search(
        {name: token[token.index("_") + 17 :].encode() for name, token in everything.tokens.items()}
    )


@pytest.fixture(scope="module")
def sessions(everything: Everything) -> Search:
    assert len(everything.sessions) > 5
    return Search({name: value.encode() for name, value in everything.sessions.items()})


@pytest.fixture(scope="module")
def verifiers(everything: Everything) -> Search:
    """Look for the salt and the hash of each verifier; what comes before them is no secret."""
    with raw(address_of(everything.data_dir)) as connection:
        rows = connection.execute("SELECT key_id, verifier FROM auth_lookup").fetchall()
    assert len(rows) > 10
    return Search(
        {
            f"{part} of {key_id}": text.encode()
            for key_id, verifier in rows
            for part, text in zip(("salt", "hash"), verifier.split("$")[-2:], strict=True)
        }
    )


@pytest.fixture(scope="module")
def digests(everything: Everything) -> Search:
    with raw(address_of(everything.data_dir)) as connection:
        rows = connection.execute("SELECT lookup_id, digest FROM key_digests").fetchall()
    assert len(rows) > 5
    return Search(dict(rows))


@pytest.fixture(scope="module")
def pepper(everything: Everything) -> Search:
    return Search({"pepper": (everything.data_dir / "pepper").read_bytes()})


SAID = ("answers", "outputs", "probes", "logs")


def test_the_run_has_met_all_kinds_of_answers_and_failures(everything: Everything) -> None:
    assert everything.statuses >= {200, 201, 202, 204, 401, 403, 404, 405, 409, 412, 422, 503}
    assert len(everything.tokens) > 15
    for log in everything.logs[::2]:
        assert b"Traceback" in log
        assert b"digest_not_kept" in log
    assert differences(everything.data_dir) == SOUND


@pytest.mark.parametrize("said", SAID)
def test_no_token_is_in_what_anybody_was_told(
    said: str, everything: Everything, secrets: Search
) -> None:
    leaks = [each for each in getattr(everything, said) if secrets.found_in(each)]
    assert leaks == []


def test_no_token_is_in_any_file(everything: Everything, secrets: Search) -> None:
    assert secrets.found_in_files(everything.data_dir) == {}
    assert secrets.found_in_files(everything.data_dir_while_running) == {}
    assert secrets.found_in_files(everything.data_dir.with_name("temporary")) == {}


def test_no_token_is_in_any_table(everything: Everything, secrets: Search) -> None:
    assert secrets.found_in_tables(everything.data_dir) == {}


@pytest.mark.parametrize("said", SAID)
def test_no_session_is_in_what_anybody_else_was_told(
    said: str, everything: Everything, sessions: Search
) -> None:
    leaks = [each for each in getattr(everything, said) if sessions.found_in(each)]
    assert leaks == []


def test_no_session_is_in_any_file_or_table(everything: Everything, sessions: Search) -> None:
    with raw(address_of(everything.data_dir)) as connection:
        assert connection.execute("SELECT count(*) FROM console_sessions").fetchone()[0] > 3
    assert sessions.found_in_tables(everything.data_dir) == {}
    assert sessions.found_in_files(everything.data_dir) == {}
    assert sessions.found_in_files(everything.data_dir_while_running) == {}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("kept", ["verifiers", "digests", "pepper"])
def test_stored_forms_of_a_secret_are_never_shown(
    said: str, kept: str, everything: Everything, request: pytest.FixtureRequest
) -> None:
    search: Search = request.getfixturevalue(kept)
    leaks = [each for each in getattr(everything, said) if search.found_in(each)]
    assert leaks == []


def test_a_verifier_is_in_the_events_and_in_the_auth_lookup_alone(
    everything: Everything, verifiers: Search
) -> None:
    tables = verifiers.found_in_tables(everything.data_dir)
    assert tables.keys() == {"events", "auth_lookup"}
    assert tables["auth_lookup"] == tables["events"]


def test_a_digest_is_in_its_own_table_alone(everything: Everything, digests: Search) -> None:
    assert digests.found_in_tables(everything.data_dir).keys() == {"key_digests"}


def test_the_pepper_is_in_its_own_file_alone(everything: Everything, pepper: Search) -> None:
    assert pepper.found_in_files(everything.data_dir).keys() == {"pepper"}
    assert pepper.found_in_files(everything.data_dir_while_running).keys() == {"pepper"}
