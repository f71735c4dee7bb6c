"""A thousand replays of requests that were taken once: at once, later, at another node, after a restart, in other words, changed, too late.

Two nodes share a store, as a fleet does, and one of them is killed and started again. What is sent again is told by the code that the platform
has for it, and the messages that are in the log at the end are those of the first times, each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import pytest
from fastapi import FastAPI

from gateway.auth.keys import NewKey
from gateway.services import Services
from schemas.limits import Limits
from tests.support.many_bed import ManyBed, One
from tests.unit.gateway.openapi.gate import Made, app_of, ask
from tests.unit.gateway.openapi.requests import acs3, stamp, v1
from tests.unit.gateway.openapi.test_hostile_requests import in_form, reordered, roomy, shouted, spelled

pytestmark = pytest.mark.slow

CAPTURED: Final = 50
"""Requests of each family."""
REPLAYS: Final = 1_000
USED, CHANGED, LATE = "SignatureNonceUsed", "SignatureDoesNotMatch", "InvalidTimeStamp.Expired"
WINDOW: Final = 900
"""Seconds."""


class Site:
    def __init__(self, folder: Path) -> None:
        self.bed = ManyBed(folder, limits=Limits(login_failures_address=0, login_failures_key=0))
        first = self.bed.start("a")
        assert first.app._keyring is not None
        self.keyring = first.app._keyring
        self.key: NewKey = self.bed.loop.finish(self.keyring.create("manager", 0))
        self.apps: dict[str, FastAPI] = {"a": self._app(first), "b": self._app(self.bed.start("b"))}
        self.bed.advance(1)
        self.found: Counter[str] = Counter()
        self.wrong: list[Any] = []

    def _app(self, one: One) -> FastAPI:
        app = one.app
        assert app._keyring is not None
        assert app._engine is not None
        return app_of(one.node, Services(one.node, app._keyring, app._engine, "0", lambda: 0.0))

    def restart(self, name: str) -> None:
        self.bed.kill(self.bed.living[name])
        self.apps[name] = self._app(self.bed.start(name))

    def make(self, family: Callable[..., Made], number: int, **changes: str) -> Made:
        now = self.bed.living["a"].node.clock.wall()
        fields = {"InstanceId": "bed", "MqttTopic": "plant/a", "Payload": f"{family.__name__} {number}"} | changes
        return family(self.key.id, self.key.secret.reveal(), "SendMessage", now, **fields)

    def send(self, made: Made, node: str = "a") -> str:
        return self.bed.loop.finish(ask(self.apps[node], made)).code

    def replay(self, made: Made, expected: str, node: str = "a") -> None:
        code = self.send(made, node)
        self.found[code] += 1
        if code != expected:
            self.wrong.append((code, expected, made))


@pytest.fixture
def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    caplog.set_level("ERROR", "gateway.openapi.endpoint")
    site = Site(tmp_path)
    yield site
    site.bed.close()


def nonce_of(made: Made) -> str:
    return made[2].get("x-acs-signature-nonce") or dict(parse_qsl(made[1][2:]))["SignatureNonce"]


def signed_again(site: Site, made: Made, number: int) -> Made:
    """By the key's owner, with other parameters under a nonce that was used: a program that counts wrong is refused too."""
    if "authorization" in made[2]:
        extra = {"x-acs-signature-nonce": nonce_of(made)}
        now = site.bed.living["a"].node.clock.wall()
        return acs3(site.key.id, site.key.secret.reveal(), "SendMessage", now, b"", extra, InstanceId="bed", MqttTopic="plant/b", Payload="again")
    return site.make(v1, number, Payload="again", SignatureNonce=nonce_of(made))


def with_other_payload(made: Made) -> Made:
    pairs = [(name, "again" if name == "Payload" else value) for name, value in parse_qsl(made[1][2:], keep_blank_values=True)]
    return made[0], "/?" + urlencode(pairs), made[2], made[3]


def with_other_nonce(made: Made) -> Made:
    pairs = [(name, value + "x" if name == "SignatureNonce" else value) for name, value in parse_qsl(made[1][2:], keep_blank_values=True)]
    headers = {name: value + "x" if name == "x-acs-signature-nonce" else value for name, value in made[2].items()}
    return made[0], "/?" + urlencode(pairs), headers, made[3]


def of_now(site: Site, made: Made) -> Made:
    """With a time that is fresh, unsigned."""
    now = stamp(site.bed.living["a"].node.clock.wall())
    pairs = [(name, now if name == "Timestamp" else value) for name, value in parse_qsl(made[1][2:], keep_blank_values=True)]
    return made[0], "/?" + urlencode(pairs), made[2] | ({"x-acs-date": now} if "x-acs-date" in made[2] else {}), made[3]


def around_nonce(before: str, after: str) -> Callable[[Made], Made]:
    """White space, of HTTP and of Unicode, around the nonce's header: trimmed before it is signed, it must not make another nonce."""

    def spaced(made: Made) -> Made:
        return *made[:2], made[2] | {"x-acs-signature-nonce": before + nonce_of(made) + after}, made[3]

    return spaced


IN_OTHER_WORDS: Final[dict[Callable[..., Made], tuple[Callable[[Made], Made], ...]]] = {
    v1: (reordered, spelled, in_form),
    acs3: (reordered, spelled, roomy, shouted, around_nonce("", "\xa0"), around_nonce("\x85", ""), around_nonce(" \t", "\x1f")),
}


def test_of_a_thousand_replays_none_is_taken(site: Site) -> None:
    captured = [(family, number, site.make(family, number)) for family in (v1, acs3) for number in range(CAPTURED)]
    for _, number, made in captured:
        assert site.send(made, "ab"[number % 2]) == ""
    for family, number, made in captured:  # at once, at both, in other words, changed
        site.replay(made, USED, "ab"[number % 2])
        site.replay(made, USED, "ba"[number % 2])
        words = IN_OTHER_WORDS[family]
        site.replay(words[number % len(words)](made), USED, "b")
        site.replay(with_other_payload(made), CHANGED)
        site.replay(with_other_nonce(made), CHANGED)
        site.replay(signed_again(site, made, number), USED, "b")
    site.restart("a")
    for _, _, made in captured:
        site.replay(made, USED)
    site.bed.advance(WINDOW - 10)
    site.restart("b")
    for _, _, made in captured:
        site.replay(made, USED, "b")
    site.bed.advance(20)
    for _, number, made in captured:
        site.replay(made, LATE, "ab"[number % 2])
        site.replay(of_now(site, made), CHANGED)
    assert site.wrong == []
    assert site.found.total() == REPLAYS
    assert site.found == {USED: 600, CHANGED: 300, LATE: 100}
    first = {f"{family.__name__} {number}".encode(): 1 for family, number, _ in captured}
    assert Counter(record.payload for record in site.bed.published()) == first


def test_every_white_space_around_a_nonce_leaves_it_that_nonce(site: Site) -> None:
    """All that a header's bytes can hold: each made a captured request a new one, under a signature that was still right."""
    made = site.make(acs3, 0)
    assert site.send(made) == ""
    spaces = [chr(code) for code in range(256) if chr(code).isspace()]
    assert len(spaces) == 12
    for space in spaces:
        for spaced in (around_nonce(space, ""), around_nonce("", space), around_nonce(space * 9, space * 9)):
            assert site.send(spaced(made)) == USED
    assert len(site.bed.published()) == 1
