"""The manifest of normative statements is honest: every statement of MQTT 5.0 has a row, which names tests that exist or gives a reason.

The code that obeys a statement names it, and so does each of its tests: `[MQTT-3.3.1-4]` leads from the one to the other.
"""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.unit.gateway.protocol.test_vectors import VECTORS

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CODE = ("schemas", "streams", "bridges", "gateway")
VECTORS_FOLDER = "tests/unit/gateway/protocol/vectors"

SECTIONS = """
    1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 3.2.2:22 3.3.1:13
    3.3.2:20 3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1
    3.10.3:2 3.10.4:6 3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2
    4.2:1 4.3.1:1 4.3.2:5 4.3.3:13 4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7
    4.12.1:2 4.13.1:1 4.13.2:1 6.0.0:4
"""
"""The highest number in each section of appendix B; one number is not given out."""

STATEMENTS = {
    f"MQTT-{section}-{number}" for section, highest in (word.split(":") for word in SECTIONS.split()) for number in range(1, int(highest) + 1)
} - {"MQTT-2.2.1-1"}

ROWS = tomllib.loads((HERE / "statements.toml").read_text(encoding="utf-8"))["statement"]


def _test_id(row: dict[str, object]) -> str:
    return str(row["id"])


def test_the_specification_has_251_statements() -> None:
    assert len(STATEMENTS) == 251


def test_every_statement_has_one_row() -> None:
    assert sorted(row["id"] for row in ROWS) == sorted(STATEMENTS)


@pytest.mark.parametrize("row", ROWS, ids=_test_id)
def test_row(row: dict[str, object]) -> None:
    assert set(row) in ({"id", "summary", "where"}, {"id", "summary", "reason"})
    assert row["summary"]
    assert row.get("where") or row.get("reason")
    where = row.get("where", [])
    assert isinstance(where, list)
    for test in where:
        _check_exists(str(test))
        assert f"[{row['id']}]" in _text_of(str(test)), f"{test} does not name {row['id']}"
    if where:
        assert f"[{row['id']}]" in _all_code(), f"no line of the code names {row['id']}"


def _check_exists(test: str) -> None:
    parts = re.fullmatch(r"(tests/[\w/]+\.py)::(test_\w+)(?:\[(.+)\])?", test)
    assert parts, f"{test}: not path::function or path::function[vector]"
    path, function, vector = parts.groups()
    assert function in _functions(path), f"{test}: no such test"
    if vector is not None:
        assert vector in _vectors(function), f"{test}: no such vector"


@cache
def _text_of(test: str) -> str:
    """A test function, or all vectors."""
    path, _, name = test.partition("::")
    if "[" in name:
        return "".join(file.read_text(encoding="utf-8") for file in (ROOT / VECTORS_FOLDER).glob("*.py"))
    source = (ROOT / path).read_text(encoding="utf-8")
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return next(ast.get_source_segment(source, node) or "" for node in nodes if node.name == name)


@cache
def _all_code() -> str:
    return "".join(file.read_text(encoding="utf-8") for folder in CODE for file in (ROOT / folder).rglob("*.py"))


@cache
def _functions(path: str) -> frozenset[str]:
    file = ROOT / path
    assert file.exists(), f"{path}: no such file"
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@cache
def _vectors(function: str) -> frozenset[str]:
    good = {"test_decodes": True, "test_encodes": True, "test_refuses": False}[function]
    return frozenset(vector.name for vector in VECTORS if (vector.packet is not None) == good)


@pytest.mark.parametrize("test", ["tests/nowhere.py::test_x", "tests/conformance/test_statements.py::test_nothing", "no test", "x::test_y"])
def test_a_name_that_leads_nowhere_is_found_out(test: str) -> None:
    with pytest.raises(AssertionError):
        _check_exists(test)


def test_a_vector_that_is_not_there_is_found_out() -> None:
    path = "tests/unit/gateway/protocol/test_vectors.py"
    _check_exists(f"{path}::test_refuses[publish QoS 3-v5]")
    for name in ("test_decodes[publish QoS 3-v5]", "test_refuses[nothing-v5]"):
        with pytest.raises(AssertionError):
            _check_exists(f"{path}::{name}")
