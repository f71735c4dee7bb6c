"""`sluiceway trace`: what is asked, and a line an event."""

import time

from schemas.traces import OF_MESSAGE, TraceEvent, TraceGap, TracePage
from tests.unit.gateway.commands.test_commands import Site, site

__all__ = ["Site", "site"]


async def test_a_line_an_event_and_a_gap(site):
    event = TraceEvent(time=1_700_000_000_123, action="pub_mqtt", client_id="dev 1", message_id="AB" * 16, detail="a/b")
    gaps = [TraceGap(begin=0, end=1000, messages=5, events=2), TraceGap(begin=0, end=2000, messages=0, events=0, node="two")]
    site.services.traced = TracePage(3, [event], gaps)
    code, out, err = await site.run("trace", "--client", "dev 1", "--kind", "message", "--since", "2h", "--limit", "7")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "2023-11-14 22:13:20.123 pub_mqtt     dev 1 " + "AB" * 16 + " a/b",
        "(2 more; --limit shows more)",
        "gap from 1970-01-01 00:00:00.000 to 1970-01-01 00:00:01.000: 5 messages not picked, 2 events lost",
        "gap from 1970-01-01 00:00:00.000 to 1970-01-01 00:00:02.000 on node two: nothing is known",
    ]
    [asked] = site.services.asked
    assert (asked.client, asked.actions, asked.size, asked.newest_first) == ("dev 1", OF_MESSAGE, 7, True)
    assert abs(asked.begin - (time.time() - 7200) * 1000) < 60_000


async def test_json_and_what_is_wrong(site):
    assert (await site.run("trace", "--message", "ab" * 16, "--json"))[1].startswith('{"page": 1')
    assert (await site.run("trace", "--since", "yesterday"))[2].startswith("sluiceway: --since yesterday: it must be a number and s, m, h or d")
    assert (await site.run("trace", "--message", "ab"))[:2] == (1, "")
