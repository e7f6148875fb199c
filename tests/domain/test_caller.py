"""Callers of commands."""

from domain.caller import Actor, system
from domain.scopes import cover


def test_an_actor_has_a_type_and_an_id() -> None:
    assert Actor("key", "apikey_1").as_json() == {"type": "key", "id": "apikey_1"}


def test_the_ledger_itself_may_grant_anything_and_comes_with_no_request() -> None:
    expirer = system("expirer")

    assert expirer.actor.as_json() == {"type": "system", "id": "expirer"}
    assert cover(expirer.holds, ["*"])
    assert (expirer.request_id, expirer.source_ip) == (None, None)
