"""The labels for token prefixes are those of existing keys, and few."""

from api.http.prefix_labels import MAX_PREFIXES, OTHER, PrefixLabels
from domain.verdict import AuthRow, Code, Refused, Verified


def key(prefix: str) -> AuthRow:
    return AuthRow(
        position=1,
        lookup_id="l" * 16,
        key_id="k",
        workspace="default",
        name="n",
        role="member",
        token_prefix=prefix,
        scopes=(),
        expires_at=None,
        revoked=False,
        expired=False,
        verifier="v",
    )


def test_a_prefix_is_a_label_once_the_secret_of_such_a_key_was_right() -> None:
    labels = PrefixLabels("key")
    unknown = Refused(Code.NOT_FOUND)
    assert labels.label(unknown, "key_x") == "key"
    assert labels.label(unknown, "blnk_x") == OTHER
    assert labels.label(Verified(key("blnk")), "blnk_x") == "blnk"
    assert labels.label(unknown, "blnk_y") == "blnk"
    assert labels.label(Refused(Code.REVOKED, key("old")), "old_x") == "old"


def test_a_text_without_a_known_prefix_is_other() -> None:
    labels = PrefixLabels("key")
    for text in ("", "_", "secret", "secret_key_x", "KEY_x", " key_x", "\x00", "ü_" * 1000):
        assert labels.label(Refused(Code.MALFORMED), text) == OTHER


def test_the_number_of_labels_is_limited() -> None:
    labels = PrefixLabels("key")
    names = [f"p{number}" for number in range(MAX_PREFIXES + 10)]
    used = {labels.label(Verified(key(name)), f"{name}_x") for name in names}
    assert used == {*names[: MAX_PREFIXES - 1], OTHER}
    assert labels.label(Refused(Code.NOT_FOUND), "key_x") == "key"
