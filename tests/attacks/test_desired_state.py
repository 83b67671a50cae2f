"""Desired states that must not be followed, against a whole client: connection, follower, policy, applier and disk."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from schema.desired import PAYLOAD_TYPE, Content, DesiredState
from schema.envelope import ClientIdentity, DirectorIdentity, decode_bytes, seal_envelope
from schema.scalars import MAX_GENERATION
from schema.wire import Desired, encode
from tests.client.director_stub import desired_state
from tests.client.fleet import Fleet
from tests.client.machine import job, schedule
from tests.client.virtual_clock import START

STOLEN = "source_directories:\n  - /root\nkeep_daily: 7\n"


async def following(fleet: Fleet, **changes: Any) -> bytes:
    """Have the client follow generation 100, and return its configuration as it then is."""
    fleet.director.envelope = fleet.envelope(**changes)
    await fleet.start()
    await fleet.until_following()
    return fleet.file.read_bytes()


async def push(fleet: Fleet, envelope: bytes) -> None:
    await fleet.director.push(encode(Desired(envelope=envelope.decode())))


async def refused(fleet: Fleet, envelope: bytes, *, before: bytes) -> str:
    """Send an envelope, and return why it was refused; nothing has changed."""
    await push(fleet, envelope)
    await fleet.until(lambda: fleet.state()["refusal"])
    assert fleet.state()["generation"] == 100
    assert fleet.file.read_bytes() == before
    return str(fleet.state()["refusal"]["code"])


async def followed(fleet: Fleet, envelope: bytes, *, generation: int) -> None:
    """Send an envelope, and see it followed."""
    await push(fleet, envelope)
    await fleet.until_following(generation)
    assert fleet.state()["refusal"] is None


def payload(envelope: bytes) -> dict[str, Any]:
    """Return the signed state in an envelope."""
    state: dict[str, Any] = json.loads(decode_bytes(json.loads(envelope)["payload"]))
    return state


def other(fleet: Fleet) -> Content:
    return fleet.content(options=STOLEN)


# --- Rollback ---


async def test_an_older_state_that_was_signed_once_is_not_followed_again(fleet):
    older = fleet.envelope(other(fleet), generation=99)
    before = await following(fleet)

    assert await refused(fleet, older, before=before) == "older-generation"


async def test_a_newer_state_that_holds_what_an_older_one_held_is_followed(fleet):
    await following(fleet)

    await followed(fleet, fleet.envelope(other(fleet), generation=101), generation=101)

    assert b"/root" in fleet.file.read_bytes()


async def test_an_older_state_is_not_followed_after_a_restart_either(fleet):
    before = await following(fleet)
    await fleet.stop()
    fleet.director.envelope = fleet.envelope(other(fleet), generation=99)

    await fleet.start()
    await fleet.until(lambda: fleet.state()["refusal"])

    assert fleet.state()["refusal"]["code"] == "older-generation"
    assert fleet.file.read_bytes() == before


async def test_a_newer_state_is_followed_after_a_restart(fleet):
    await following(fleet)
    await fleet.stop()
    fleet.director.envelope = fleet.envelope(other(fleet), generation=101)

    await fleet.start()

    await fleet.until_following(101)


# --- Freeze ---


async def test_whoever_withholds_every_newer_state_is_found_out_when_the_last_one_expires(fleet):
    await following(fleet, expires=START + timedelta(minutes=5))

    await fleet.clock.advance(3600)

    await fleet.until(lambda: fleet.state()["stale"] and "Stale" in fleet.events())


async def test_a_state_that_is_renewed_in_time_never_grows_stale(fleet):
    await following(fleet, expires=START + timedelta(minutes=5))
    renewed = fleet.envelope(generation=101, expires=START + timedelta(days=90))
    await followed(fleet, renewed, generation=101)

    await fleet.clock.advance(3600)
    fleet.director.reports.clear()
    await fleet.stop()

    assert not any(state["stale"] for state in fleet.reports("state"))
    assert "Stale" not in fleet.events()


# --- A mix of two revisions ---


@pytest.mark.parametrize("half", ["jobs", "files", "digest", "revision"])
async def test_halves_of_two_signed_states_make_no_third(fleet, half):
    before = await following(fleet)
    jobs = (job("web", url=str(fleet.base), schedule=schedule("* * * * *")),)
    first = fleet.envelope(fleet.content(jobs=jobs), generation=101)
    second = fleet.envelope(other(fleet), generation=102, revision="b" * 40)
    mixed = payload(first)
    if half in {"jobs", "files"}:
        mixed["content"][half] = payload(second)["content"][half]
    else:
        mixed[half] = payload(second)[half]
    thief = DirectorIdentity.generate()
    sealed = json.loads(seal_envelope(json.dumps(mixed).encode(), payload_type=PAYLOAD_TYPE, identity=thief))
    sealed["signatures"] = json.loads(first)["signatures"]

    assert await refused(fleet, json.dumps(sealed).encode(), before=before) == "bad-signature"


async def test_each_of_the_two_signed_states_is_followed(fleet):
    await following(fleet)
    jobs = (job("web", url=str(fleet.base), schedule=schedule("* * * * *")),)

    await followed(fleet, fleet.envelope(fleet.content(jobs=jobs, suspend=True), generation=101), generation=101)
    await followed(fleet, fleet.envelope(other(fleet), generation=102, revision="b" * 40), generation=102)


async def test_content_and_digest_of_two_states_are_no_state_even_when_signed(fleet):
    before = await following(fleet)
    mixed = fleet.envelope(other(fleet), generation=101, digest=fleet.content().digest())

    assert await refused(fleet, mixed, before=before) == "wrong-digest"


async def test_content_with_its_own_digest_is_a_state(fleet):
    await following(fleet)
    right = fleet.envelope(other(fleet), generation=101, digest=other(fleet).digest())

    await followed(fleet, right, generation=101)


async def test_a_job_without_its_file_or_a_file_without_its_job_is_not_applied(fleet):
    before = await following(fleet)
    half = fleet.content(jobs=())

    assert await refused(fleet, fleet.envelope(half, generation=101), before=before) == "PolicyDenied"


async def test_neither_jobs_nor_files_is_a_state_that_is_applied(fleet):
    await following(fleet)

    await followed(fleet, fleet.envelope(fleet.content(jobs=(), files=()), generation=101), generation=101)

    assert not fleet.file.exists()


# --- Another client's ---


async def test_the_state_of_another_client_is_not_followed(fleet):
    before = await following(fleet)
    theirs = ClientIdentity.generate().public.text
    envelope = desired_state(fleet.director.identity, theirs, content=other(fleet), generation=101)

    assert await refused(fleet, envelope, before=before) == "wrong-audience"


async def test_the_state_of_another_name_is_not_followed_though_it_is_for_our_key(fleet):
    before = await following(fleet)
    content = other(fleet).model_copy(update={"client": "web-2"})

    await push(fleet, fleet.envelope(content, generation=101))
    await fleet.until(lambda: not fleet.director._open)  # it comes back, for a person may have renamed it
    while fleet.director.sessions == 1:
        await fleet.clock.advance(10)

    await fleet.until(lambda: "Refused" in fleet.events())
    assert fleet.state()["generation"] == 100
    assert fleet.file.read_bytes() == before


async def test_the_same_state_for_our_own_key_and_name_is_followed(fleet):
    await following(fleet)

    await followed(fleet, fleet.envelope(other(fleet), generation=101), generation=101)


async def test_a_state_of_another_director_is_not_followed(fleet):
    before = await following(fleet)
    envelope = desired_state(DirectorIdentity.generate(), fleet.key, content=other(fleet), generation=101)

    assert await refused(fleet, envelope, before=before) == "bad-signature"


# --- One generation with two contents ---


async def test_a_second_content_under_one_generation_is_not_followed(fleet):
    before = await following(fleet)

    assert await refused(fleet, fleet.envelope(other(fleet)), before=before) == "same-generation"


async def test_the_same_content_under_its_generation_is_welcome_again(fleet):
    before = await following(fleet)
    assert await refused(fleet, fleet.envelope(other(fleet)), before=before) == "same-generation"

    await push(fleet, fleet.director.envelope or b"")

    await fleet.until(lambda: fleet.state()["refusal"] is None)
    assert fleet.file.read_bytes() == before


# --- A generation at the end of all generations ---


TEN_YEARS = 3653 * 86_400_000


@pytest.mark.parametrize("generation", [MAX_GENERATION, int(START.timestamp() * 1000) + TEN_YEARS + 86_400_000])
async def test_a_generation_that_would_be_the_last_is_refused_and_the_next_one_is_not(fleet, generation):
    before = await following(fleet)

    assert await refused(fleet, fleet.envelope(generation=generation), before=before) == "generation-jumped"
    await followed(fleet, fleet.envelope(other(fleet), generation=101), generation=101)


async def test_a_generation_as_a_rebuilt_director_gives_it_is_followed(fleet):
    await following(fleet)
    rebuilt = int(START.timestamp() * 1000)

    await followed(fleet, fleet.envelope(other(fleet), generation=rebuilt), generation=rebuilt)


@pytest.mark.parametrize("generation", [MAX_GENERATION + 1, 2**63, -1, 0, "9" * 400])
async def test_a_generation_that_is_no_number_of_ours_is_refused(fleet, generation):
    before = await following(fleet)
    state = payload(fleet.envelope(other(fleet), generation=101))
    text = json.dumps(state | {"generation": 0}).replace('"generation": 0', f'"generation": {generation}')
    envelope = seal_envelope(text.encode(), payload_type=PAYLOAD_TYPE, identity=fleet.director.identity)

    assert await refused(fleet, envelope, before=before) == "malformed"


async def test_a_state_that_is_read_and_signed_again_as_it_is_is_followed(fleet):
    await following(fleet)
    state = DesiredState.model_validate(payload(fleet.envelope(other(fleet), generation=101)))
    text = state.model_dump_json()

    await followed(
        fleet,
        seal_envelope(text.encode(), payload_type=PAYLOAD_TYPE, identity=fleet.director.identity),
        generation=101,
    )
