"""The plan of mutations, and that what is drawn is always another text."""

from tests.support.mutations import PLAN, WAYS, Draw


def test_ten_thousand_are_tried_in_all():
    assert sum(PLAN.values()) == 10_000


def test_a_changed_text_is_another_one_and_every_way_finds_some():
    draw, text = Draw(1), "vI009IZJZVGRwBwZvnbwjfuXxVM="
    assert all(draw.changed(text) != text for _ in range(1_000))
    assert all(draw.changed("") for _ in range(100))
    for way in WAYS:
        assert any(way(draw, text) != text for _ in range(20)), way
