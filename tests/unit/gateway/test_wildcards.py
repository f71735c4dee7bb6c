"""The limit of different wildcard filters under a parent topic: over all clients, given back with the last of them, kept over a crash."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.settings.options import PRESETS
from schemas.limits import Limits
from tests.support.testbed import Testbed

QUOTA = 0x97


def test_the_preset_of_the_product_has_it() -> None:
    assert PRESETS["apsaramq"]["limits.wildcards_per_parent"] == 100
    assert Limits().wildcards_per_parent == 0


def test_different_wildcards_of_a_parent(make_bed: Callable[..., Testbed]) -> None:
    bed = make_bed(limits=msgspec.structs.replace(Limits(), wildcards_per_parent=2))
    one, two = bed.connect("one", clean_start=False, session_expiry=600), bed.connect("two")
    assert one.subscribe("a/+", "a/b/#", "a/c/#", "a/exact", "b/#") == (1, 1, QUOTA, 1, 1)
    assert two.subscribe("a/+", "a/d/#") == (1, QUOTA)  # what is there already is no other one
    assert one.subscribe("$share/g/a/+", "$share/g/a/e/#") == (1, QUOTA)
    assert one.subscribe("a/+") == (1,)
    assert bed.node.counters.refused["wildcards_per_parent"] == 3
    one.unsubscribe("a/b/#")
    assert two.subscribe("a/d/#") == (1,)
    assert one.subscribe("a/b/#") == (QUOTA,)
    two.drop()
    bed.settle()
    assert one.subscribe("a/b/#") == (1,)
    bed.crash()
    three = bed.connect("three")
    assert three.subscribe("a/x/#", "a/b/#") == (QUOTA, 1)
