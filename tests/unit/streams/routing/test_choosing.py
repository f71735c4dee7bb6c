"""One node a record: the same while it has members, each by its weight, and in every process alike."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streams.routing.choosing import Share, choose_node

share = st.builds(Share, st.integers(1, 1_000), st.integers(1, 50), st.integers(0, 50))
shares = st.lists(share, min_size=1, max_size=8, unique_by=lambda share: share.epoch)


@given(st.text(), st.text(), shares, st.randoms(use_true_random=False))
def test_the_choice_has_members_online_where_anybody_has_in_whatever_order_they_come(
    publisher: str, topic: str, offered: list[Share], order: object
) -> None:
    chosen = choose_node(publisher, topic, offered)
    found = next(share for share in offered if share.epoch == chosen)
    assert found.online or not any(share.online for share in offered)
    shuffled = list(offered)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose_node(publisher, topic, shuffled) == chosen


@given(st.text(), st.text(), shares.filter(lambda offered: len(offered) > 1), st.data())
def test_a_node_that_goes_or_loses_weight_moves_only_what_it_had(publisher: str, topic: str, offered: list[Share], data: st.DataObject) -> None:
    offered = [share._replace(online=share.online + 1) for share in offered]
    chosen = choose_node(publisher, topic, offered)
    other = data.draw(st.sampled_from([share for share in offered if share.epoch != chosen]))
    assert choose_node(publisher, topic, [share for share in offered if share is not other]) == chosen
    lighter = [share._replace(online=1) if share is other else share for share in offered]
    assert choose_node(publisher, topic, lighter) == chosen


def test_nodes_get_records_by_their_members_online() -> None:
    offered = [Share(1, 9, 1), Share(2, 9, 2), Share(3, 9, 5), Share(4, 9, 0)]
    got = Counter(choose_node(f"p{number % 50}", f"t/{number}", offered) for number in range(4_000))
    assert got[4] == 0
    for epoch, weight in ((1, 1), (2, 2), (3, 5)):
        assert 0.85 < got[epoch] / (4_000 * weight / 8) < 1.15


def test_where_nobody_is_online_the_weight_is_the_members() -> None:
    got = Counter(choose_node("p", f"t/{number}", [Share(1, 1, 0), Share(2, 4, 0)]) for number in range(2_000))
    assert 0.85 < got[2] / 1_600 < 1.15


def test_publisher_and_topic_are_not_run_together() -> None:
    offered = [Share(epoch, 1, 1) for epoch in range(1, 100)]
    assert choose_node("a", "bc", offered) != choose_node("ab", "c", offered)


def test_every_process_chooses_alike() -> None:
    expression = "[choose_node(f'p{n}', 'a/b', [Share(e, 1, 1) for e in range(1, 9)]) for n in range(20)]"
    program = f"from streams.routing.choosing import Share, choose_node; print({expression})"
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    assert found.decode().strip() == str([choose_node(f"p{n}", "a/b", [Share(e, 1, 1) for e in range(1, 9)]) for n in range(20)])
