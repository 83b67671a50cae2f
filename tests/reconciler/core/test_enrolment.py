"""Who may connect: approvals, revocations, conflicts and tokens."""

from __future__ import annotations

import pytest

from reconciler.core import enrolment
from reconciler.core.enrolment import Accepted, Approval, Pending, Registry, TokenState
from reconciler.core.refusals import Refused
from schema import wire
from schema.wire import RefusalCode

KEY, OTHER, THIRD = ("bd1-client." + letter * 86 for letter in "ABC")


def admit(
    registry: Registry, *, key: str = KEY, name: str = "web-1", pending: bool = False, token: str = "absent"
) -> enrolment.Admission:
    return enrolment.admit(registry, public_key=key, name=name, pending=pending, token=TokenState(token))


def code(admission: enrolment.Admission | int) -> RefusalCode:
    assert isinstance(admission, Refused)
    return admission.code


def hello(*versions: int, key: str = KEY) -> wire.Hello:
    return wire.Hello(versions=versions or (1,), name="web-1", key=key, nonce="A" * 43)


# --- Approval ---


def test_a_key_that_stands_in_git_is_approved_by_the_commit():
    assert admit(Registry.build(committed={"web-1": KEY})) == Accepted("web-1", "commit")


def test_a_key_that_a_person_approved_by_command_is_approved_by_that_person():
    assert admit(Registry.build(commanded=[Approval(KEY, "web-1", "ana")])) == Accepted("web-1", "ana")


def test_an_approved_key_is_called_as_it_was_approved_whatever_it_asks_for():
    registry = Registry.build(committed={"web-1": KEY, "web-2": OTHER})

    assert admit(registry, name="web-9") == Accepted("web-1", "commit")
    assert admit(registry, name="web-2") == Accepted("web-1", "commit")


def test_a_client_in_git_without_a_key_may_be_approved_by_command():
    registry = Registry.build(committed={"web-1": ""}, commanded=[Approval(KEY, "web-1", "ana")])

    assert admit(registry) == Accepted("web-1", "ana")


def test_the_commit_counts_when_both_approve():
    registry = Registry.build(committed={"web-1": KEY}, commanded=[Approval(KEY, "web-1", "ana")])

    assert admit(registry) == Accepted("web-1", "commit")
    assert registry.conflicting == ()


# --- Conflicts ---


def test_a_command_never_takes_a_name_away_from_the_key_in_git():
    registry = Registry.build(committed={"web-1": KEY}, commanded=[Approval(OTHER, "web-1", "ana")])

    assert registry.holders == {"web-1": KEY}
    assert registry.conflicting == (Approval(OTHER, "web-1", "ana"),)
    assert code(admit(registry, key=OTHER, pending=True)) == RefusalCode.KEY_CONFLICT


def test_a_command_never_gives_a_second_name_to_the_key_in_git():
    registry = Registry.build(committed={"web-1": KEY}, commanded=[Approval(KEY, "web-2", "ana")])

    assert registry.holders == {"web-1": KEY}
    assert registry.conflicting == (Approval(KEY, "web-2", "ana"),)


def test_one_key_under_two_names_in_git_has_the_first():
    registry = Registry.build(committed={"b": KEY, "a": KEY})

    assert registry.holders == {"a": KEY}
    assert registry.conflicting == (Approval(KEY, "b"),)


def test_of_contradicting_commands_the_first_counts():
    registry = Registry.build(commanded=[Approval(KEY, "web-1", "ana"), Approval(OTHER, "web-1", "ben")])

    assert registry.holders == {"web-1": KEY}


@pytest.mark.parametrize("shown", [{"pending": True}, {"token": "good"}])
def test_another_key_that_asks_for_an_approved_name_is_refused(shown):
    registry = Registry.build(committed={"web-1": KEY})

    refused = admit(registry, key=OTHER, **shown)

    assert code(refused) == RefusalCode.KEY_CONFLICT
    assert isinstance(refused, Refused)
    assert "revoke the old key first" in refused.hint
    assert not refused.failed


def test_whoever_shows_no_token_does_not_learn_which_names_are_taken():
    registry = Registry.build(committed={"web-1": KEY})

    for token in ("absent", "bad"):
        taken = admit(registry, key=OTHER, name="web-1", token=token)
        assert taken == admit(registry, key=OTHER, name="nobody", token=token)


# --- Revocation ---


def test_a_revoked_key_stays_out_even_when_it_stands_in_git_and_was_approved():
    registry = Registry.build(committed={"web-1": KEY}, commanded=[Approval(KEY, "web-1", "ana")], revoked=[KEY])

    assert code(admit(registry)) == RefusalCode.REVOKED
    assert code(admit(registry, pending=True, token="good")) == RefusalCode.REVOKED
    assert not enrolment.needs_token(registry, KEY, pending=False)


def test_the_name_of_a_revoked_key_is_free_for_a_new_one():
    registry = Registry.build(committed={"web-1": KEY}, commanded=[Approval(OTHER, "web-1", "ana")], revoked=[KEY])

    assert admit(registry, key=OTHER) == Accepted("web-1", "ana")


# --- Tokens ---


@pytest.mark.parametrize(
    ("token", "expected", "failed"),
    [("absent", RefusalCode.TOKEN_REQUIRED, False), ("bad", RefusalCode.TOKEN_INVALID, True)],
)
def test_an_unknown_key_without_a_good_token_is_refused(token, expected, failed):
    refused = admit(Registry.build(), token=token)

    assert code(refused) == expected
    assert isinstance(refused, Refused)
    assert refused.failed is failed


def test_an_unknown_key_with_a_good_token_waits():
    assert admit(Registry.build(), token="good") == Pending("web-1")


@pytest.mark.parametrize("token", TokenState)
def test_a_key_that_waits_already_needs_no_token(token):
    assert admit(Registry.build(), pending=True, token=token) == Pending("web-1")
    assert not enrolment.needs_token(Registry.build(), KEY, pending=True)


def test_a_token_is_asked_of_unknown_keys_only():
    registry = Registry.build(committed={"web-1": KEY})

    assert not enrolment.needs_token(registry, KEY, pending=False)
    assert enrolment.needs_token(registry, OTHER, pending=False)


def test_a_machine_with_a_spent_token_that_comes_back_when_told_is_never_locked_out():
    refused = admit(Registry.build(), token="bad")

    assert isinstance(refused, Refused)
    assert refused.retry_after is not None
    assert 3600 / refused.retry_after < 10


# --- The first answer ---


@pytest.mark.parametrize("versions", [(1,), (2, 1), (1, 99)])
def test_the_newest_common_version_is_chosen(versions):
    assert enrolment.greet(Registry.build(), hello(*versions), locked=0) == 1


def test_a_client_without_a_common_version_is_refused_and_not_counted():
    refused = enrolment.greet(Registry.build(), hello(2, 3), locked=0)

    assert code(refused) == RefusalCode.VERSION
    assert isinstance(refused, Refused)
    assert not refused.failed


def test_a_locked_source_is_refused_before_anything_else():
    refused = enrolment.greet(Registry.build(), hello(2), locked=120.0)

    assert code(refused) == RefusalCode.LOCKED_OUT
    assert isinstance(refused, Refused)
    assert refused.retry_after == 120.0
    assert not refused.failed


def test_an_approved_key_may_try_from_a_locked_source():
    registry = Registry.build(committed={"web-1": KEY})

    assert enrolment.greet(registry, hello(), locked=120.0) == 1
    assert code(enrolment.greet(registry, hello(key=OTHER), locked=120.0)) == RefusalCode.LOCKED_OUT


def test_a_revoked_key_may_not_try_from_a_locked_source():
    registry = Registry.build(committed={"web-1": KEY}, revoked=[KEY])

    assert code(enrolment.greet(registry, hello(), locked=1.0)) == RefusalCode.LOCKED_OUT
