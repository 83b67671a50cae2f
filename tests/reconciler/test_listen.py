"""Where the director listens, and with what: addresses, sockets of dead directors, TLS."""

from __future__ import annotations

import hashlib
import resource
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import tls
from reconciler.gateway import GatewaySettings
from reconciler.listen import MAX_CONNECTIONS, Address, allow_connections
from schema import wire
from schema.errors import TerminalError, TransientError, TrustError
from tests.client.virtual_clock import VirtualClock
from tests.reconciler import wire_client
from tests.reconciler.house import (
    LOOPBACK,
    House,
    pinned,
)
from tests.reconciler.wire_client import WireClient


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", ":0", "192.0.2.7:8440", "director.example:8440"])
async def test_without_tls_the_director_does_not_start_where_others_can_listen(tmp_path, listen):
    house = House(tmp_path, settings=GatewaySettings(listen=(Address.parse(listen),)))

    with pytest.raises(TerminalError, match="without TLS"):
        await house.open()
    await house.store.close()


@pytest.mark.parametrize("text_", ["", "8440", "host", "host:port", "host:99999", "unix:relative", "1.2.3.4:-1"])
def test_an_address_that_is_none_is_refused(text_):
    with pytest.raises(TerminalError, match="cannot listen"):
        Address.parse(text_)


@pytest.mark.parametrize("text_", ["127.0.0.1:1", "[::1]:8440", "unix:/run/director.sock", "0.0.0.0:0"])
def test_an_address_is_written_as_it_is_read(text_):
    assert str(Address.parse(text_)) == text_


async def test_an_address_in_use_is_said_so(house, tmp_path):
    second = House(tmp_path / "second", settings=replace(house.settings, listen=(house.address,)))
    second.directory.mkdir()

    with pytest.raises(TransientError, match="is another director running"):
        await second.open()
    await second.store.close()


async def test_the_socket_of_a_killed_director_is_taken_over_and_a_file_is_not(tmp_path, me):
    path = tmp_path / "director.sock"
    house = House(tmp_path, settings=GatewaySettings(listen=(Address(path=str(path)),)))
    path.write_text("precious")
    with pytest.raises(TerminalError, match="something else"):
        await house.open()
    await house.store.close()
    path.unlink()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(TransientError, match="somebody already does"):
            await house.open()
        await house.store.close()

    await house.open()
    house.commit(web_1=me)
    await house.enter(me)
    await house.close()


# --- TLS ---


async def test_over_tls_the_handshake_is_bound_to_the_certificate(tmp_path, me):
    certificate = tls.self_signed_certificate(tmp_path, names=["127.0.0.1"], now=VirtualClock().now())
    house = House(tmp_path, certificate=certificate)
    await house.open()
    house.commit(web_1=me)
    client = await WireClient.dial(house.address, tls=pinned(certificate))

    assert client.channel == certificate.fingerprint
    assert (await client.shake_hands(me))["type"] == "accepted"
    await house.close()


async def test_a_man_in_the_middle_who_ends_tls_himself_cannot_pass_signatures_on(tmp_path, me):
    certificate = tls.self_signed_certificate(tmp_path, names=["127.0.0.1"], now=VirtualClock().now())
    house = House(tmp_path, certificate=certificate)
    await house.open()
    house.commit(web_1=me)
    client = await WireClient.dial(house.address, tls=pinned(certificate))
    client.channel = hashlib.sha256(b"the certificate of the man in the middle").hexdigest()

    with pytest.raises(TrustError, match="signature"):
        await client.challenge(me)
    await house.close()


async def test_plain_bytes_on_a_tls_port_hurt_nobody(tmp_path, me):
    certificate = tls.self_signed_certificate(tmp_path, names=["127.0.0.1"], now=VirtualClock().now())
    house = House(tmp_path, certificate=certificate)
    await house.open()
    house.commit(web_1=me)

    reader, writer = await wire_client.open_stream(house.address)
    writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
    await reader.read()
    writer.close()

    client = await WireClient.dial(house.address, tls=pinned(certificate))
    assert (await client.shake_hands(me))["type"] == "accepted"
    await house.close()


# --- Beside it ---


async def test_wherever_numbers_are_served_they_say_what_the_store_says_too(tmp_path):
    place = Address(path=str(tmp_path / "metrics.sock"))
    apart = House(tmp_path, settings=GatewaySettings(listen=(LOOPBACK,), metrics_listen=place))
    await apart.open()

    async def all_numbers() -> bytes:
        return apart.gateway.numbers() + b"borgmatic_director_store_readable 1\n"

    apart.gateway.probes.all_numbers = all_numbers

    _, body = await wire_client.get(place, "/metrics")
    assert 'borgmatic_director_connections{state="open"} 0.0' in body
    assert "borgmatic_director_store_readable 1" in body
    await apart.close()


async def test_numbers_may_have_a_place_of_their_own(tmp_path, me):
    place = Address(path=str(tmp_path / "metrics.sock"))
    house = House(tmp_path, settings=GatewaySettings(listen=(LOOPBACK,), metrics_listen=place))
    await house.open()
    house.metrics.reconciled("published", seconds=0.2)

    status, body = await wire_client.get(place, "/metrics")
    assert (status, (await wire_client.get(house.address, "/metrics"))[0]) == (200, 404)
    assert (await wire_client.get(place, wire.PATH))[0] == 404
    assert 'borgmatic_director_reconciles_total{outcome="published"} 1.0' in body
    await house.close()


async def test_when_the_place_of_the_numbers_is_taken_nothing_else_stays_open(tmp_path):
    (tmp_path / "metrics.sock").write_text("precious")
    place, door = Address(path=str(tmp_path / "metrics.sock")), Address(path=str(tmp_path / "director.sock"))
    house = House(tmp_path, settings=GatewaySettings(listen=(door,), metrics_listen=place))

    with pytest.raises(TerminalError, match="something else"):
        await house.open()
    await house.store.close()
    assert not Path(door.path).exists()


def test_a_director_may_hold_as_many_connections_as_the_system_allows():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))

        allow_connections()

        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(before[1], MAX_CONNECTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
