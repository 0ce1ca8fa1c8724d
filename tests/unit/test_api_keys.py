"""The form of an API key."""

import re

import pytest

from octollm.credentials.key import allows, id_of, named_id, new_key, visible


def test_a_key_has_its_form_and_no_two_are_alike():
    made = [new_key() for _ in range(100)]
    assert len({one.id for one in made}) == len({one.text[-52:] for one in made}) == 100
    for one in made:
        assert re.fullmatch(r"octo_[a-z2-7]{12}_[a-z2-7]{52}", one.text)
        assert id_of(one.text) == named_id(visible(one.id)) == named_id(one.id) == one.id
        assert len(one.digest) == 32


def test_the_secret_is_not_in_the_repr():
    key = new_key()
    assert key.id in repr(key)
    assert key.text[-52:] not in f"{key} {key!r}"


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: text[:-1], lambda text: f"{text}\n", lambda text: f" {text}"]
)
def test_what_is_almost_a_key_is_none(change):
    text = change(new_key().text)
    assert id_of(text) is None
    assert named_id(text) is None


def test_admin_includes_every_scope_and_the_others_only_themselves():
    assert allows(frozenset({"admin"}), "operate")
    assert allows(frozenset({"read"}), "read")
    assert not allows(frozenset({"submit", "read", "cancel"}), "operate")
    assert not allows(frozenset(), "read")
