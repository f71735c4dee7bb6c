"""The trace over HTTP: what may be asked, by whom, and how it is answered."""

import time

import pytest

from schemas.limits import DAY_MS
from schemas.traces import OF_DEVICE, OF_MESSAGE, TraceEvent, TraceGap, TracePage, TraceQuery
from streams.tracing import TraceBusy, TraceOff, TraceTooDeep


async def test_all_that_can_be_asked(api):
    path = "/api/v1/trace?client=GID_a@@@1&message=" + "ab" * 16 + "&kind=message&begin=5&end=9&page=2&pageSize=7&reverse=true"
    of_two = TraceGap(begin=5, end=6, messages=0, events=0, node="two")
    api.services.traced = TracePage(
        8, [TraceEvent(time=6, action="sub", client_id="GID_a@@@1", message_id="AB" * 16)], [TraceGap(begin=5, end=6, messages=3, events=1), of_two]
    )
    response = await api.ask("GET", path, key=api.manager)
    assert response.json() == {
        "page": 2,
        "pageSize": 7,
        "total": 8,
        "events": [{"time": 6, "action": "sub", "clientId": "GID_a@@@1", "messageId": "AB" * 16}],
        "gaps": [{"begin": 5, "end": 6, "messages": 3, "events": 1}, {"begin": 5, "end": 6, "messages": 0, "events": 0, "node": "two"}],
    }
    message = bytes([0xAB] * 16)
    asked = TraceQuery(begin=5, end=9, client="GID_a@@@1", message=message, actions=OF_MESSAGE, page=2, size=7, newest_first=True)
    assert api.services.asked == [asked]


async def test_without_times_it_is_the_last_day(api):
    before = time.time_ns() // 1_000_000
    await api.ask("GET", "/api/v1/trace", key=api.administrator)
    [asked] = api.services.asked
    assert before <= asked.end <= time.time_ns() // 1_000_000
    assert asked.end - asked.begin == DAY_MS
    assert (asked.actions, asked.page, asked.size, asked.newest_first) == ((), 1, 100, False)


async def test_a_clients_history_is_newest_first_and_of_devices(api):
    response = await api.ask("GET", "/api/v1/history/on/line?begin=1&end=2", key=api.manager)
    assert response.status_code == 200
    assert api.services.asked == [TraceQuery(begin=1, end=2, client="on/line", actions=OF_DEVICE, newest_first=True)]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ("message=xyz", "query.message"),
        ("message=" + "a" * 31, "query.message"),
        ("kind=other", "query.kind"),
        ("begin=-1", "query.begin"),
        ("end=x", "query.end"),
        ("begin=9&end=8", "begin"),
        ("page=0", "query.page"),
        ("pageSize=1001", "query.pageSize"),
        ("reverse=maybe", "query.reverse"),
        ("client=" + "x" * 257, "query.client"),
    ],
)
async def test_what_is_wrong_is_named(api, asked, field):
    response = await api.ask("GET", "/api/v1/trace?" + asked, key=api.manager)
    assert response.status_code == 400
    assert response.json()["error"]["field"] == field
    assert api.services.asked == []


@pytest.mark.parametrize("path", ["/api/v1/trace", "/api/v1/history/x"])
async def test_it_is_for_managers(api, path):
    assert (await api.ask("GET", path, key=api.device)).status_code == 403
    assert (await api.ask("GET", path)).status_code == 401


async def test_off_and_busy(api):
    api.services.trace_fails = TraceOff("nothing is traced: set trace.enabled")
    response = await api.ask("GET", "/api/v1/trace", key=api.manager)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "trace_off")
    api.services.trace_fails = TraceTooDeep("too deep")
    response = await api.ask("GET", "/api/v1/trace?page=99", key=api.manager)
    assert (response.status_code, response.json()["error"]["field"]) == (400, "page")
    api.services.trace_fails = TraceBusy("try again")
    assert (await api.ask("GET", "/api/v1/history/x", key=api.manager)).status_code == 503
