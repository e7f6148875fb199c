"""The labels for token prefixes are those of the settings, whatever anybody presents."""

import pytest

from api.http.prefix_labels import OTHER, PrefixLabels
from domain.errors import Invalid
from domain.names import checked_token_prefix


def test_a_prefix_of_the_settings_is_its_own_label() -> None:
    labels = PrefixLabels({"key", "blnk"})
    assert (labels.label("key_x"), labels.label("blnk_x")) == ("key", "blnk")


@pytest.mark.parametrize(
    "text", ["", "_", "secret", "other_x", "KEY_x", " key_x", "\x00", "key", "\xfc_" * 1000]
)
def test_every_other_text_is_other(text: str) -> None:
    assert PrefixLabels({"blnk"}).label(text) == OTHER


def test_no_key_has_the_label_of_other_texts_as_its_prefix() -> None:
    with pytest.raises(Invalid):
        checked_token_prefix(OTHER)
