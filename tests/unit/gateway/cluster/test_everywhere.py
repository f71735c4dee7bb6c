"""What is asked of one node about clients, connections, counts and the trace, said and done for all of them; who says nothing is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from gateway.api.services import ClosedConnections, OnlineGroups
from gateway.cluster.asking import WITHIN, Unanswered
from gateway.cluster.traces import EVERY
from gateway.protocol.packets import Disconnect
from gateway.services import Services
from schemas.errors import StoreError
from schemas.reasons import ReasonCode
from schemas.traces import TraceEvent, TraceGap, TraceQuery
from streams.cluster import POLL, QUESTION_BYTES, QUESTIONS
from streams.tracing import DEPTH, TraceOff, TraceTooDeep
from tests.support.many_bed import ManyBed
from tests.support.party import will

Make = Callable[..., ManyBed]
T = TypeVar("T")
NAMES = ("one", "two", "three")
KEPT = {"clean_start": False, "session_expiry": 86_400}
LATEST = 2**53


class Fleet:
    def __init__(self, bed: ManyBed) -> None:
        self.bed = bed
        self.one, self.two, self.three = (bed.start(name) for name in NAMES)
        self.services: dict[str, Services] = {name: bed.living[name].services() for name in NAMES}

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Nothing of a question is left once it is answered."""
        answer = self.bed.loop.finish(work)
        self.bed.settle()
        assert self.bed.store._state.cluster.asked == {}
        return answer

    def took(self, work: Coroutine[Any, Any, Any]) -> float:
        since = self.bed.loop.time()
        self.ask(work)
        return self.bed.loop.time() - since

    def all_events(self, name: str, size: int = 100, absent: tuple[str, ...] = (), **query: Any) -> list[TraceEvent]:
        """Of all pages of that size; ``absent``: whose events can't be among them."""
        found: list[TraceEvent] = []
        for page in range(1, 100):
            answer = self.ask(self.services[name].trace(TraceQuery(begin=0, end=LATEST, page=page, size=size, **query)))
            assert tuple(gap.node for gap in answer.gaps) == absent
            found += answer.events
            if len(found) >= answer.total:
                assert len(found) == answer.total
                return found
        raise AssertionError


@pytest.fixture
def fleet(make_many: Make) -> Fleet:
    return Fleet(make_many())


def test_a_session_is_found_wherever_it_is(fleet: Fleet) -> None:
    fleet.one.connect("here", **KEPT).subscribe("a/#", qos=1)
    fleet.two.connect("away", **KEPT).disconnect()
    fleet.three.connect("clean")
    for services in fleet.services.values():
        found = fleet.ask(services.session("here"))
        assert found is not None
        assert (found.client_id, found.connected, found.node, [s.filter for s in found.subscriptions]) == ("here", True, "one", ["a/#"])
        for client, connected, node in (("away", False, "two"), ("clean", True, "three")):
            found = fleet.ask(services.session(client))
            assert found is not None
            assert (found.client_id, found.connected, found.node) == (client, connected, node)
        assert fleet.ask(services.session("nobody")) is None
    fleet.bed.store.cluster.owners = None  # type: ignore[method-assign, assignment]
    assert fleet.ask(fleet.services["one"].session("no\x00body")) is None, "the store isn't asked for what its text can't hold"


def test_a_connection_is_closed_wherever_it_is(fleet: Fleet) -> None:
    party, stays = fleet.two.connect("c"), fleet.two.connect("d")
    assert fleet.ask(fleet.services["one"].close_connection("c"))
    assert party.one(Disconnect).reason_code == ReasonCode.ADMINISTRATIVE_ACTION
    assert party.closed
    assert not stays.closed
    assert not fleet.ask(fleet.services["one"].close_connection("c"))
    assert not fleet.ask(fleet.services["one"].close_connection("nobody"))


def test_what_is_here_is_answered_without_asking(fleet: Fleet) -> None:
    fleet.one.connect("c")
    fleet.bed.store.cluster.ask = None  # type: ignore[method-assign, assignment]
    assert fleet.ask(fleet.services["one"].session("c")) is not None
    assert fleet.ask(fleet.services["one"].close_connection("c"))


def test_clients_of_a_group_are_counted_on_all_nodes(fleet: Fleet) -> None:
    for one, clients in ((fleet.one, ("GID_a@@@1", "GID_b@@@1")), (fleet.two, ("GID_a@@@2",)), (fleet.three, ("GID_a@@@3", "GID_c@@@1"))):
        for client in clients:
            one.connect(client)
    for services in fleet.services.values():
        assert fleet.ask(services.online()) == OnlineGroups({"GID_a": 3, "GID_b": 1, "GID_c": 1}, [])
        assert fleet.ask(services.online("GID_a")) == OnlineGroups({"GID_a": 3}, [])
        assert fleet.ask(services.online("GID_d")) == OnlineGroups({}, [])


def test_connections_of_a_revoked_key_are_closed_on_all_nodes_at_once(fleet: Fleet) -> None:
    parties = [one.connect(f"c{number}") for number, one in enumerate((fleet.one, fleet.two, fleet.two))]
    assert fleet.ask(fleet.services["three"].close_connections_of("anonymous")) == ClosedConnections(3, [])
    assert all(party.closed for party in parties)


def test_the_trace_of_all_nodes_has_each_event_once_on_whatever_page(fleet: Fleet) -> None:
    readers = [one.connect(f"reader-{one.name}") for one in (fleet.one, fleet.two, fleet.three)]
    for reader in readers:
        reader.subscribe("a", qos=1)
    for number, one in enumerate((fleet.two, fleet.three)):
        one.connect(f"writer-{number}").exchange("a", b"x")
        fleet.bed.advance(0.1)
    readers[0].disconnect()
    fleet.bed.advance(2)
    messages = [("pub_mqtt", f"writer-{number}") for number in range(2)]
    messages += [(word, f"reader-{name}") for name in NAMES for word in ("sub", "ack") for _ in range(2)]
    devices = [("connect", client) for client in (*(f"reader-{name}" for name in NAMES), "writer-0", "writer-1")]
    devices += [("disconnect", "reader-one"), ("close", "reader-one")]
    found = fleet.all_events("one")
    assert sorted((event.action, event.client_id) for event in found) == sorted(messages + devices)
    assert [event.time for event in found] == sorted(event.time for event in found)
    for name in NAMES:
        assert fleet.all_events(name, 3) == fleet.all_events(name, 1) == found
        backwards = fleet.all_events(name, 4, newest_first=True)
        assert [event.time for event in backwards] == [event.time for event in reversed(found)]
        assert {event.client_id for event in fleet.all_events(name, client="reader-two")} == {"reader-two"}


def test_a_will_is_told_of_once_whoever_publishes_it(fleet: Fleet) -> None:
    watcher = fleet.one.connect("watcher")
    watcher.subscribe("wills/#", qos=1)
    fleet.one.connect("lives", will=will("wills/1", b"1")).drop()
    fleet.two.connect("drops", will=will("wills/2", b"2")).drop()
    fleet.three.connect("dies", will=will("wills/3", b"3"))
    fleet.bed.advance(1)
    fleet.bed.kill(fleet.three)
    fleet.bed.advance(5)
    assert sorted(watcher.payloads()) == [b"1", b"2", b"3"]
    wills = [event.client_id for event in fleet.all_events("two", absent=("three",)) if event.action == "pub_mqtt"]
    assert sorted(wills) == ["dies", "drops", "lives"]


def test_a_page_too_deep_for_many_nodes_is_refused(fleet: Fleet) -> None:
    trace = fleet.services["one"].trace
    with pytest.raises(TraceTooDeep, match="later begin"):
        fleet.ask(trace(TraceQuery(begin=0, end=LATEST, page=DEPTH // 100 + 1, size=100)))
    assert fleet.ask(trace(TraceQuery(begin=0, end=LATEST, page=DEPTH // 100, size=100))).events == []


def test_a_node_that_stands_still_is_named_in_time(fleet: Fleet) -> None:
    fleet.two.connect("GID_a@@@1")
    fleet.three.connect("GID_a@@@2")
    fleet.bed.advance(1)
    fleet.bed.cut_off(fleet.three)
    services = fleet.services["one"]
    assert fleet.took(services.online()) == pytest.approx(WITHIN)
    assert fleet.ask(services.online("GID_a")) == OnlineGroups({"GID_a": 1}, ["three"])
    for work in (services.session("GID_a@@@2"), services.close_connection("GID_a@@@2")):
        with pytest.raises(Unanswered, match=r"no answer of: three$"):
            fleet.bed.loop.finish(work)
    page = fleet.ask(services.trace(TraceQuery(begin=5, end=LATEST)))
    assert page.gaps == [TraceGap(begin=5, end=LATEST, messages=0, events=0, node="three")]
    assert {event.client_id for event in page.events} == {"GID_a@@@1", "GID_a@@@2"}
    assert fleet.ask(services.close_connections_of("anonymous")) == ClosedConnections(1, ["three"])


def test_one_that_has_the_client_is_enough(fleet: Fleet) -> None:
    party = fleet.two.connect("c")
    fleet.three.link.cut = True
    assert fleet.took(fleet.services["one"].session("c")) == 0
    assert fleet.took(fleet.services["one"].close_connection("c")) == 0
    fleet.bed.settle()
    assert party.closed


def test_a_session_between_two_nodes_is_not_said_to_be_none(fleet: Fleet) -> None:
    fleet.three.connect("c", **KEPT)
    fleet.bed.kill(fleet.three)  # nobody has taken it over yet
    with pytest.raises(Unanswered, match="from one node to another"):
        fleet.bed.loop.finish(fleet.services["one"].session("c"))
    fleet.bed.advance(3)
    found = fleet.ask(fleet.services["one"].session("c"))
    assert found is not None
    assert not found.connected


def test_gaps_and_a_trace_that_is_off_are_named_by_node(fleet: Fleet) -> None:
    fleet.two.traces.gaps = [TraceGap(begin=6, end=7, messages=3, events=4), TraceGap(begin=1, end=2, messages=1, events=1)]
    fleet.three.node.trace._store = None
    page = fleet.ask(fleet.services["one"].trace(TraceQuery(begin=5, end=9)))
    assert page.gaps == [TraceGap(begin=6, end=7, messages=3, events=4, node="two"), TraceGap(begin=5, end=9, messages=0, events=0, node="three")]
    assert [gap.node for gap in fleet.ask(fleet.services["three"].trace(TraceQuery(begin=5, end=9))).gaps] == ["two", "three"]
    fleet.one.node.trace._store = fleet.two.node.trace._store = None
    with pytest.raises(TraceOff):
        fleet.ask(fleet.services["one"].trace(TraceQuery(begin=5, end=9)))


def test_a_node_that_is_down_is_a_gap_of_the_time_in_which_it_may_have_traced(fleet: Fleet) -> None:
    trace, began = fleet.services["one"].trace, fleet.one.node.clock.wall()
    fleet.bed.kill(fleet.three)
    fleet.bed.advance(20)
    assert len(fleet.bed.store._state.cluster.nodes) == 2, "it is buried"
    (gap,) = fleet.ask(trace(TraceQuery(begin=5, end=LATEST))).gaps
    assert (gap.begin, gap.node, gap.messages, gap.events) == (5, "three", 0, 0)
    assert began + 2 * EVERY * 1000 <= gap.end <= began + 2 * EVERY * 1000 + 60_000
    assert fleet.ask(trace(TraceQuery(begin=gap.end + 1, end=LATEST))).gaps == []
    assert [gap.end for gap in fleet.ask(trace(TraceQuery(begin=5, end=9))).gaps] == [9]
    fleet.bed.start("three")
    assert fleet.ask(trace(TraceQuery(begin=5, end=LATEST))).gaps == []


def test_notices_that_are_lost_cost_no_answer(fleet: Fleet) -> None:
    fleet.two.connect("GID_a@@@1")
    listeners = fleet.bed.store.cluster.listeners
    heard, listeners.heard = listeners.heard, []
    task = fleet.bed.loop.create_task(fleet.services["one"].online())
    for _ in range(2):  # the question, and its answers
        fleet.bed.advance(0.5)
        assert not task.done()
        for each in heard:
            each(POLL)
    fleet.bed.settle()
    listeners.heard = heard
    assert task.result() == OnlineGroups({"GID_a": 1}, [])


def test_who_can_t_answer_says_so(fleet: Fleet) -> None:
    asking, answering = fleet.one.node.everywhere.asking, fleet.two.node.everywhere.asking._answering  # type: ignore[union-attr]

    async def fails(body: bytes) -> bytes:
        raise RuntimeError

    async def refuses(body: bytes) -> bytes:
        raise StoreError("no")

    async def too_much(body: bytes) -> bytes:
        return bytes(5_000_000)

    since = fleet.bed.loop.time()
    answering.update(online=fails, session=refuses)  # type: ignore[attr-defined]
    for kind in ("online", "session", "a later version's"):
        assert "two" in fleet.ask(asking.ask(kind)).silent
    answering.update(online=too_much)  # type: ignore[attr-defined]
    with pytest.raises(Unanswered, match="the answer of two is larger than"):
        fleet.ask(asking.ask("online"))
    assert fleet.bed.loop.time() == since, "nobody waits for what won't come"
    with pytest.raises(Unanswered, match="too long"):
        fleet.ask(asking.ask("session", bytes(QUESTION_BYTES + 1)))


def test_one_question_is_asked_once_at_a_time_and_not_too_many(fleet: Fleet) -> None:
    services, asked = fleet.services["one"], fleet.bed.store._state.cluster.asked
    fleet.three.link.cut = True

    async def crowd() -> list[OnlineGroups | BaseException]:
        same = [services.online("GID_a") for _ in range(50)]
        others = [services.online(f"GID_{number:03}") for number in range(QUESTIONS)]
        many = asyncio.gather(*same, *others, return_exceptions=True)
        await asyncio.sleep(0.1)
        assert len(asked or fleet.bed.store._state.cluster.asked) == QUESTIONS
        return await many

    answers = fleet.ask(crowd())
    assert [answer for answer in answers[:50] if answer != OnlineGroups({}, ["three"])] == []
    (refused,) = [answer for answer in answers if isinstance(answer, BaseException)]
    assert isinstance(refused, Unanswered)
    assert "at a time" in str(refused)


def test_without_the_store_a_key_is_revoked_all_the_same(fleet: Fleet) -> None:
    party = fleet.one.connect("c")
    fleet.one.link.cut = True
    assert fleet.bed.loop.finish(fleet.services["one"].close_connections_of("anonymous")) == ClosedConnections(1, ["all others"])
    assert party.closed
    with pytest.raises(StoreError):
        fleet.bed.loop.finish(fleet.services["one"].online())


def test_a_caller_who_goes_takes_nobody_s_answer_along(fleet: Fleet) -> None:
    services = fleet.services["one"]
    fleet.two.connect("GID_a@@@1")
    first, second = (fleet.bed.loop.create_task(services.online("GID_a")) for _ in range(2))
    fleet.bed.loop.call_soon(first.cancel)
    fleet.bed.settle()
    assert first.cancelled()
    assert second.result().counts == {"GID_a": 1}
