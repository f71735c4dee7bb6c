"""What a notice may be: it has to fit on one line of a database's channel."""

import pytest

from streams.cluster import NOTICE_CHARACTERS, Notice


@pytest.mark.parametrize(("topic", "detail"), [("", "x"), ("a b", ""), ("a", "x\0"), ("a", "x" * NOTICE_CHARACTERS)])
def test_what_is_no_notice_can_t_be_made(topic, detail):
    with pytest.raises(ValueError, match="a notice has a topic without spaces"):
        Notice(topic, detail)


def test_the_longest_notice():
    assert len(Notice("a", "x" * (NOTICE_CHARACTERS - 1)).detail) == NOTICE_CHARACTERS - 1
