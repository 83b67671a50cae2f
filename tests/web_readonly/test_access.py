"""Who may look: the decision, the login, the limits."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from yarl import URL

from reconciler.tls import self_signed_certificate
from schema.addresses import Proxies
from schema.viewers import Password, Viewer, Viewers, token_hash, token_text
from tests.web_readonly import seeded
from tests.web_readonly.visitor import Visitor, visiting
from web_readonly import access as rules
from web_readonly import gate
from web_readonly.access import Access, Facts, Nobody, Who, Wrong
from web_readonly.app import make_app, serving
from web_readonly.attempts import ATTEMPTS, OTHERS, WINDOW, Attempts
from web_readonly.reader import Reader
from web_readonly.viewers import ViewersFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

TOKEN = token_text(b"t" * 32)
VIEWER = Viewer(hash=token_hash(TOKEN), note="wall", created=seeded.NOW)
VIEWERS = {VIEWER.hash: VIEWER}
SECRET = "correct horse battery staple"
ANN = Password(14, 8, 1, b"salt" * 4, Password(14, 8, 1, b"salt" * 4, bytes(32)).derive(SECRET))
ASKS = Access(asks=True, users={"ann": ANN})
PROXIED = replace(ASKS, proxy_header="X-Forwarded-User", proxies=Proxies.parse(["127.0.0.1", "10.0.0.0/8"]))
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Book:
    """The viewers' tokens, to be changed by a test."""

    known: Mapping[str, Viewer]

    def __call__(self) -> Mapping[str, Viewer]:
        return self.known


@asynccontextmanager
async def asked(store: Path, *, access: Access = ASKS, **options: Any) -> AsyncIterator[Visitor]:
    async with visiting(store, access=access, viewers=options.pop("viewers", lambda: VIEWERS), **options) as client:
        yield client


async def log_in(client: Visitor, *, secret: str = TOKEN, name: str = "", then: str = "/", **headers: str) -> Any:
    return await client.post(
        "/login",
        data={"name": name, "secret": secret, "next": then},
        headers=headers,
        allow_redirects=False,
    )


# --- Open, for this machine -------------------------------------------------------------------------------------------


async def test_on_loopback_and_without_a_login_it_is_open_and_has_no_route_but_get(store):
    async with visiting(store) as client:
        assert (await client.get("/about")).status == 200
        assert (await client.get("/login")).status == 404
        assert (await client.post("/login", data={"secret": TOKEN})).status == 404


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"])
async def test_what_is_open_to_this_machine_is_not_opened_to_the_world_by_a_proxy(store, header):
    async with visiting(store) as client:
        response = await client.get("/api/v1/clients", headers={header: "203.0.113.9"})

        assert response.status == 403
        assert "login" in (await response.json())["error"]["hint"]


async def test_who_says_that_anybody_may_look_is_obeyed(store):
    async with visiting(store, access=Access(anywhere=True, hosts=frozenset({"backups.example"}))) as client:
        for host in ("backups.example", "BACKUPS.example:8441", "192.0.2.7:8441", "[2001:db8::1]:8441", "localhost"):
            response = await client.get("/about", headers={"Host": host, "X-Forwarded-For": "203.0.113.9"})

            assert response.status == 200, host


async def test_what_is_open_to_a_network_is_not_open_to_sites_that_rename_themselves(store):
    async with visiting(store, access=Access(anywhere=True)) as client:
        response = await client.get("/about", headers={"Host": "evil.example"})

        assert response.status == 421


@pytest.mark.parametrize(
    ("access", "hosts", "welcome"),
    [
        (Access(), ["localhost"], True),
        (Access(), ["192.0.2.7"], False),
        (Access(), [], False),
        (Access(), ["localhost", "localhost"], False),
        (Access(hosts=frozenset({"a.example"})), ["a.example."], True),
        (Access(asks=True), ["whatever.example"], True),
        (Access(asks=True, hosts=frozenset({"a.example"})), ["b.example"], False),
        (Access(asks=True, hosts=frozenset({"a.example"})), ["192.0.2.7:1"], True),
    ],
)
def test_a_request_is_meant_for_us_under_our_names(access, hosts, welcome):
    assert access.welcomes(hosts) is welcome


# --- Everybody says who they are --------------------------------------------------------------------------------------


async def test_without_a_login_nothing_is_told(store):
    paths = (
        "/",
        "/clients",
        "/clients/web-1",
        "/nope",
        "/api/v1/overview",
        "/api/v1/nope",
        "/metrics",
        "/live",
        "/about",
    )
    async with asked(store) as client:
        for path in paths:
            for headers in ({}, BROWSER):
                response = await client.get(path, headers=headers)

                assert response.status == 401, path
                assert response.headers["WWW-Authenticate"]
                assert response.headers["Cache-Control"] == "no-store"
                assert "web-1" not in (await response.text()).replace(path, "")


async def test_whether_it_lives_and_how_it_looks_is_no_secret(store):
    async with asked(store) as client:
        page = await (await client.get("/", headers=BROWSER)).text()
        style = page.partition('href="/static/')[2].partition('"')[0]

        assert (await client.get(f"/static/{style}")).status == 200
        assert (await client.get("/livez", headers={"Host": "kubelet"})).status == 200


async def test_no_way_to_write_a_path_leads_around_the_gate(store):
    paths = [
        *("/static/../clients", "/static/%2e%2e/clients", "/livez/../clients", "/login/..%2fclients", "/LIVEZ"),
        *("/livez%2f..%2fclients", "/static/..%5c..%5cclients/x", "/static//clients", "/badge/../clients"),
    ]
    async with asked(store) as client:
        for path in paths:
            response = await client.get(URL(path, encoded=True))

            assert response.status in {401, 404}, path
            assert "web-1" not in await response.text()


async def test_a_token_lets_programs_in(store):
    async with asked(store) as client:
        for headers in (bearer(TOKEN), {"Authorization": f"bearer {TOKEN}"}, basic("", TOKEN), basic("x", TOKEN)):
            for path in ("/api/v1/overview", "/metrics", "/clients"):
                assert (await client.get(path, headers=headers)).status == 200


async def test_a_name_and_a_password_let_programs_in(store):
    async with asked(store) as client:
        assert (await client.get("/metrics", headers=basic("ann", SECRET))).status == 200
        for headers in (basic("ann", SECRET + "x"), basic("bob", SECRET), basic("ann", ""), basic("", SECRET)):
            assert (await client.get("/metrics", headers=headers)).status == 401


async def test_a_program_is_told_what_would_let_it_in_and_a_browser_gets_the_form(store):
    async with asked(store) as client:
        program = await client.get("/api/v1/clients")
        browser = await client.get("/clients?q=web", headers=BROWSER)

        assert program.headers.getall("WWW-Authenticate") == [
            'Bearer realm="borgmatic-director"',
            'Basic realm="borgmatic-director", charset="UTF-8"',
        ]
        assert "viewer token" in (await program.json())["error"]["hint"]
        assert "Basic" not in browser.headers["WWW-Authenticate"]
        assert 'name="next" value="/clients?q=web"' in await browser.text()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode(b"no-colon").decode(),
        "Digest username=ann",
        "Bearer " + "x" * 5_000,
        "Bearer " + VIEWER.hash,
        "Bearer " + VIEWER.id,
        "Bearer bd1-viewer.é",
        "nonsense",
    ],
)
def test_a_header_that_makes_no_sense_lets_nobody_in(header):
    facts = Facts(peer="192.0.2.1", authorization=(header,))

    assert isinstance(rules.identify(ASKS, facts, viewers=VIEWERS, now=seeded.NOW), Wrong)


def test_two_headers_are_one_too_many():
    facts = Facts(peer="192.0.2.1", authorization=(f"Bearer {TOKEN}", f"Bearer {TOKEN}"))

    assert isinstance(rules.identify(ASKS, facts, viewers=VIEWERS, now=seeded.NOW), Wrong)


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_header_and_no_cookie_whatever_raises_or_lets_in(header, cookie):
    facts = Facts(peer="192.0.2.1", authorization=(header,) if header else (), cookies={"director": cookie})

    assert not isinstance(rules.identify(ASKS, facts, viewers=VIEWERS, now=seeded.NOW), Who)


async def test_a_token_that_is_over_or_revoked_is_worth_nothing_at_once(store):
    book = Book(VIEWERS)
    async with asked(store, viewers=book) as client:
        before = (await client.get("/about", headers=bearer(TOKEN))).status
        book.known = {VIEWER.hash: VIEWER.model_copy(update={"expires": seeded.NOW})}
        over = (await client.get("/about", headers=bearer(TOKEN))).status
        book.known = {}
        revoked = (await client.get("/about", headers=bearer(TOKEN))).status

    assert (before, over, revoked) == (200, 401, 401)


# --- A proxy that asks ------------------------------------------------------------------------------------------------


async def test_a_trusted_proxy_says_who_it_is(store):
    async with asked(store, access=PROXIED) as client:
        assert (await client.get("/about", headers={"X-Forwarded-User": "ann@example"})).status == 200
        assert (await client.get("/about")).status == 401


async def test_anybody_elses_header_is_ignored_and_told_once(store):
    access = replace(PROXIED, proxies=Proxies.parse(["10.0.0.0/8"]))
    with capture_logs() as logs:
        async with asked(store, access=access) as client:
            for _ in range(3):
                response = await client.get("/about", headers={"X-Forwarded-User": "ann"})
                assert response.status == 401

    assert [one["event"] for one in logs if "header" in one["event"]] == ["web.header-ignored"]


@pytest.mark.parametrize("names", [(), ("",), (" ",), ("ann", "bob"), ("x" * 300,), ("a\x00b",), ("a\u202eb",)])
def test_a_header_that_names_nobody_or_two_lets_nobody_in(names):
    facts = Facts(peer="10.1.2.3", proxy_users=names)

    assert isinstance(rules.identify(PROXIED, facts, viewers=VIEWERS, now=seeded.NOW), Nobody)


def test_behind_a_proxy_the_address_is_the_visitors_and_https_is_what_it_says():
    through = Facts(peer="10.0.0.1", forwarded_for=("6.6.6.6, 203.0.113.9",), forwarded_proto=("https",))
    straight = replace(through, peer="198.51.100.1")

    assert (rules.source(PROXIED, through), rules.is_secure(PROXIED, through)) == ("203.0.113.9", True)
    assert (rules.source(PROXIED, straight), rules.is_secure(PROXIED, straight)) == ("198.51.100.1", False)


# --- The form and its cookie ------------------------------------------------------------------------------------------


async def test_a_person_logs_in_with_a_form_looks_and_logs_out(store):
    async with asked(store) as client:
        response = await log_in(client, then="/clients?q=web")
        assert (response.status, response.headers["Location"]) == (303, "/clients?q=web")
        assert (await client.get("/clients", headers=BROWSER)).status == 200
        assert VIEWER.id in await (await client.get("/login")).text()
        assert "Log out" in await (await client.get("/")).text()

        response = await client.post("/login", data={"logout": "yes"}, allow_redirects=False)
        assert (response.status, response.headers["Location"]) == (303, "/login")
        assert (await client.get("/clients", headers=BROWSER)).status == 401


async def test_a_user_logs_in_with_a_name_and_a_password(store):
    async with asked(store) as client:
        assert (await log_in(client, name="ann", secret="wrong")).status == 401
        assert (await log_in(client, name="ann", secret=SECRET)).status == 303
        assert (await client.get("/about")).status == 200


async def test_the_cookie_is_as_closed_as_a_cookie_can_be(store):
    async with asked(store, access=PROXIED) as client:
        plain = (await log_in(client)).headers["Set-Cookie"]
        proxied = (await log_in(client, **{"X-Forwarded-Proto": "https"})).headers["Set-Cookie"]

    assert plain.startswith("director=")
    assert proxied.startswith("__Host-director=")
    assert "; Secure" in proxied
    for cookie in (plain, proxied):
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie
        assert f"Max-Age={30 * 86_400}" in cookie


async def test_over_our_own_https_the_cookie_is_kept_to_it(store, tmp_path):
    certificate = self_signed_certificate(tmp_path, names=["localhost"], now=datetime.now(UTC))
    app = make_app(Reader(store), now=lambda: seeded.NOW, access=ASKS, viewers=lambda: VIEWERS)
    trust = ssl.create_default_context(cafile=str(certificate.certificate))
    async with (
        serving(app, host="127.0.0.1", port=0, tls=certificate.context()) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
    ):
        assert url.startswith("https://")
        response = await session.post(f"{url}/login", data={"secret": TOKEN}, allow_redirects=False)

        assert response.headers["Set-Cookie"].startswith("__Host-director=")
        assert "; Secure" in response.headers["Set-Cookie"]


def test_a_cookie_ends_with_its_time_its_token_its_password_and_any_change():
    users, viewer, user = {"ann": ANN}, Who("viewer", VIEWER.id), Who("user", "ann")
    read, make = rules.read_cookie, rules.make_cookie
    for who in (viewer, user):
        cookie = make(who, users=users, viewers=VIEWERS, now=seeded.NOW)
        assert read(cookie, users=users, viewers=VIEWERS, now=seeded.NOW) == who
        late = seeded.NOW + rules.LIFETIME
        assert read(cookie, users=users, viewers=VIEWERS, now=late - timedelta(seconds=1)) == who
        assert read(cookie, users=users, viewers=VIEWERS, now=late) is None
        assert read(cookie, users={}, viewers={}, now=seeded.NOW) is None
        other = replace(ANN, salt=b"other" * 4)
        again = Viewer(hash=VIEWER.id + "0" * 52, created=seeded.NOW)
        assert read(cookie, users={"ann": other}, viewers={again.hash: again}, now=seeded.NOW) is None
        for place in range(len(cookie)):
            forged = cookie[:place] + ("A" if cookie[place] != "A" else "B") + cookie[place + 1 :]
            assert read(forged, users=users, viewers=VIEWERS, now=seeded.NOW) is None, forged


def test_a_cookie_of_a_proxys_user_is_not_made():
    assert rules.make_cookie(Who("proxy", "ann"), users={"ann": ANN}, viewers=VIEWERS, now=seeded.NOW) == ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_a_form_that_another_site_sends_is_refused(store, headers, status):
    async with asked(store) as client:
        assert (await log_in(client, **headers)).status == status
        origin = f"http://{client.host}:{client.port}"
        assert (await log_in(client, Origin=origin)).status == 303


@pytest.mark.parametrize(
    "then",
    ["//evil.example", "/\\evil.example", "https://evil.example", "", "/a\r\nX: y", "/ä", "/login", "/" + "a" * 9_000],
)
async def test_a_login_leads_to_no_other_site(store, then):
    async with asked(store) as client:
        response = await log_in(client, then=then)

        assert (response.status, response.headers["Location"]) == (303, "/")


async def test_a_link_of_another_site_is_followed_by_who_is_logged_in(store):
    # Such a request has no cookie (SameSite=Strict); what the page itself asks for has.
    async with asked(store) as client:
        cross = await client.get("/", headers={**BROWSER, "Sec-Fetch-Site": "cross-site"})
        own = await client.get("/", headers={**BROWSER, "Sec-Fetch-Site": "same-origin"})

        assert 'http-equiv="refresh" content="0"' in await cross.text()
        assert "http-equiv" not in await own.text()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", FORM, 401),
        (b"secret=", FORM, 401),
        (b"secret=x&secret=y", FORM, 401),
        (b"\xff=\xff", FORM, 400),
        (b"&".join(b"a%d=1" % number for number in range(20)), FORM, 400),
        (b"x" * 20_000, FORM, 413),
        (b'{"secret": "x"}', {"Content-Type": "application/json"}, 415),
        (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
    ],
)
async def test_a_form_that_makes_no_sense_is_refused(store, body, headers, status):
    async with asked(store) as client:
        assert (await client.post("/login", data=body, headers=headers)).status == status


async def test_a_form_that_never_ends_is_given_up(store, monkeypatch):
    monkeypatch.setattr(gate, "FORM_SECONDS", 0.05)

    async def endless() -> AsyncIterator[bytes]:
        yield b"secret="
        await asyncio.Event().wait()

    async with asked(store) as client:
        response = await client.post("/login", data=endless(), headers=FORM)

        assert response.status == 408
        response.close()


async def test_nothing_but_the_login_can_be_sent(store):
    async with asked(store) as client:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await client.request(method, "/clients", headers=bearer(TOKEN))).status == 405
            assert (await client.request(method, "/clients")).status == 401
        methods = {(route.method, route.resource.canonical) for route in client.app.router.routes()}

    assert {one for one in methods if one[0] not in {"GET", "HEAD"}} == {("POST", "/login")}


# --- Who guesses ------------------------------------------------------------------------------------------------------


async def test_who_guesses_is_locked_out_and_told_for_how_long(store):
    with capture_logs() as logs:
        async with asked(store) as client:
            guesses = [basic("ann", f"guess {number}") for number in range(ATTEMPTS)]
            statuses = [(await client.get("/about", headers=one)).status for one in guesses]
            assert statuses == [401] * (ATTEMPTS - 1) + [429]
            api = await client.get("/api/v1/overview", headers=basic("ann", SECRET))
            form = await log_in(client, name="ann", secret=SECRET)

            assert (api.status, form.status) == (429, 429)
            assert 0 < int(api.headers["Retry-After"]) <= WINDOW
            assert "Too many failed logins" in await form.text()

    assert [one["event"] for one in logs] == ["web.login-failed"] * ATTEMPTS + ["web.locked"]
    assert "guess" not in json.dumps(logs)
    assert SECRET not in json.dumps(logs)


async def test_what_cannot_be_guessed_gets_in_from_a_locked_address(store):
    async with asked(store, access=PROXIED) as client:
        await log_in(client, name="ann", secret=SECRET)
        for number in range(ATTEMPTS):
            await client.get("/about", headers=bearer(f"bd1-viewer.guess{number}"))
        assert (await client.get("/about", headers=bearer("bd1-viewer.guess"))).status == 429
        assert (await client.get("/about", headers=bearer(TOKEN))).status == 200
        assert (await client.get("/about")).status == 200  # with the cookie
        client.session.cookie_jar.clear()
        assert (await client.get("/about", headers={"X-Forwarded-User": "ann"})).status == 200
        assert (await log_in(client)).status == 303


async def test_behind_a_proxy_one_visitor_locks_out_no_other(store):
    async with asked(store, access=PROXIED) as client:
        for number in range(ATTEMPTS):
            headers = basic("ann", f"guess {number}") | {"X-Forwarded-For": "203.0.113.9"}
            await client.get("/about", headers=headers)
        again = await client.get("/about", headers=basic("ann", SECRET) | {"X-Forwarded-For": "203.0.113.9"})
        other = await client.get("/about", headers=basic("ann", SECRET) | {"X-Forwarded-For": "203.0.113.10"})

    assert (again.status, other.status) == (429, 200)


async def test_a_program_with_an_old_password_locks_nobody_out(store):
    async with asked(store) as client:
        for _ in range(3 * ATTEMPTS):
            assert (await client.get("/metrics", headers=basic("prometheus", "old"))).status == 401
        assert (await client.get("/metrics", headers=basic("ann", SECRET))).status == 200


async def test_each_request_of_a_program_does_not_compute_its_password_anew(store):
    threads: list[str] = []

    class Counted(Password):
        def fits(self, password: str) -> bool:
            threads.append(threading.current_thread().name)
            return Password.fits(self, password)

    ann = Counted(ANN.cost, ANN.block, ANN.parallel, ANN.salt, ANN.hash)
    async with asked(store, access=replace(ASKS, users={"ann": ann})) as client:
        for _ in range(5):
            assert (await client.get("/livez")).status == 200
            assert (await client.get("/about", headers=basic("ann", SECRET))).status == 200

    assert len(threads) == 1
    assert threads[0] != threading.main_thread().name


async def test_few_passwords_are_computed_at_once_and_few_wait(store, monkeypatch):
    monkeypatch.setattr(gate, "MAX_WAITING", 3)
    going, most = 0, 0
    lock, enough = threading.Lock(), threading.Event()

    class Slow(Password):
        def fits(self, password: str) -> bool:
            nonlocal going, most
            with lock:
                going += 1
                most = max(most, going)
            enough.wait(10)
            with lock:
                going -= 1
            return False

    ann = Slow(ANN.cost, ANN.block, ANN.parallel, ANN.salt, ANN.hash)
    async with asked(store, access=replace(ASKS, users={"ann": ann})) as client:
        requests = [
            asyncio.create_task(client.get("/about", headers=basic("ann", f"guess {number}"))) for number in range(6)
        ]
        done = 0
        while done < 3:
            finished, _ = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
            done = len(finished)
            requests = [one for one in requests if one not in finished] + list(finished) if done < 3 else requests
            if done < 3:
                await asyncio.sleep(0)
        enough.set()
        statuses = sorted([(await one).status for one in requests])

    assert statuses == [401, 401, 401, 503, 503, 503]
    assert most <= gate.COMPUTED_AT_ONCE


def test_ten_different_guesses_lock_a_source_until_its_window_is_over():
    table = Attempts(key=b"k")
    locked = [table.failed("a", b"%d" % number, at=float(number)) for number in range(ATTEMPTS)]

    assert locked == [False] * (ATTEMPTS - 1) + [True]
    assert table.remaining("a", at=10.0) == WINDOW - 10
    assert table.remaining("b", at=10.0) == 0
    assert table.remaining("a", at=WINDOW) == 0
    assert len(table) == 0


def test_the_same_guess_again_counts_once():
    table = Attempts(key=b"k")
    for at in range(100):
        table.failed("a", b"same", at=float(at))

    assert table.is_known("a", b"same", at=100.0)
    assert not table.is_known("a", b"other", at=100.0)
    assert table.remaining("a", at=100.0) == 0


def test_the_table_of_sources_is_bounded_and_who_finds_no_place_shares_one():
    table = Attempts(key=b"k", limit=3)
    for number in range(1000):
        table.failed(str(number), b"%d" % number, at=1.0)

    assert len(table) == 4
    assert table.remaining("never seen", at=2.0) > 0
    assert table.remaining(OTHERS, at=2.0) > 0
    assert table.remaining("0", at=2.0) == 0
    assert table.remaining("never seen", at=1.0 + WINDOW) == 0


# --- The file of tokens -----------------------------------------------------------------------------------------------


def written(path: Path, *viewers: Viewer) -> None:
    new = path.with_suffix(".new")
    new.write_text(Viewers(viewers=viewers).model_dump_json())
    new.chmod(0o600)
    new.replace(path)


def test_the_file_of_tokens_is_read_again_whenever_it_changed(tmp_path):
    path = tmp_path / "viewers.json"
    file = ViewersFile(path)
    assert file() == {}
    written(path, VIEWER)
    assert file() == VIEWERS
    assert file() is file()
    written(path)
    assert file() == {}
    written(path, VIEWER)
    path.unlink()
    assert file() == {}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"viewers": [{"hash": "x"}]}', b"\0" * 2_000_000])
def test_a_damaged_file_of_tokens_lets_nobody_in(tmp_path, text):
    path = tmp_path / "viewers.json"
    file = ViewersFile(path)
    written(path, VIEWER)
    assert file() == VIEWERS
    path.write_bytes(text)
    with capture_logs() as logs:
        assert dict(file()) == {}
        assert dict(file()) == {}

    assert [one["event"] for one in logs] in (["web.viewers-unreadable"], [])
    written(path, VIEWER)
    assert file() == VIEWERS


def test_a_file_of_tokens_that_others_may_write_lets_nobody_in(tmp_path):
    path = tmp_path / "viewers.json"
    written(path, VIEWER)
    os.chmod(path, 0o666)  # noqa: PTH101 - what another did

    assert dict(ViewersFile(path)()) == {}
