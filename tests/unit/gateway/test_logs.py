"""Log lines: one event a line whatever peers put in it, in both forms, on one stream."""

import io
import json
import logging

import pytest

from gateway import logs


@pytest.fixture
def stream():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


HOSTILE = "a\nb\r\x1b[31mred\x00\x85\u2028\u202eend"


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_peers_choose_stays_in_its_line(stream, form):
    logs.configure("info", form, stream)
    logging.getLogger("gateway.x").info("connected client=%s", HOSTILE)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_text_lines_have_time_level_logger_and_message(stream):
    logs.configure("info", "text", stream)
    logging.getLogger("gateway.x").warning("event key=%d", 5)
    time, level, name, message = stream.getvalue().split(maxsplit=3)
    assert time.endswith("Z")
    assert (level, name, message) == ("warning", "gateway.x", "event key=5\n")


def test_json_lines_are_objects(stream):
    logs.configure("debug", "json", stream)
    logging.getLogger("gateway.x").debug("event name=%s", 'grün "q"')
    assert json.loads(stream.getvalue())["message"] == 'event name=grün "q"'
    assert json.loads(stream.getvalue())["level"] == "debug"


def test_a_traceback_is_one_line(stream):
    logs.configure("info", "text", stream)
    try:
        int("two\nlines")
    except ValueError:
        logging.getLogger("gateway.x").exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: invalid literal" in stream.getvalue()


def test_a_line_has_a_limit(stream):
    logs.configure("info", "text", stream)
    logging.getLogger("gateway.x").info("%s", "x" * 100_000)
    assert len(stream.getvalue()) < logs.MAX_LINE + 100


def test_lines_below_the_level_and_news_of_libraries_are_left_out(stream):
    logs.configure("info", "text", stream)
    logging.getLogger("gateway.x").debug("quiet")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert stream.getvalue() == ""
    logging.getLogger("uvicorn.error").warning("loud")
    assert "loud" in stream.getvalue()


def test_configuring_again_replaces(stream):
    logs.configure("info", "text", io.StringIO())
    logs.configure("info", "text", stream)
    logging.getLogger("gateway.x").info("once")
    assert stream.getvalue().count("once") == 1
