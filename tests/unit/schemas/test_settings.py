"""Addresses as settings have them: how they print, and which of them this machine alone can reach."""

from pathlib import Path

import pytest

from schemas.settings import Address, KeySettings, Settings


@pytest.mark.parametrize(
    ("address", "text"), [(Address("127.0.0.1", 1), "127.0.0.1:1"), (Address("::1", 2), "[::1]:2"), (Address("host", 0), "host:0")]
)
def test_an_address_prints_as_it_is_written(address, text):
    assert str(address) == text


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("127.evil.example", False)],
)
def test_what_counts_as_loopback(host, is_loopback):
    assert Address(host, 1).is_loopback is is_loopback


def test_the_seal_lies_in_the_data_folder_unless_told_otherwise():
    assert Settings(data=Path("d")).seal_file == Path("d/seal.key")
    assert Settings(data=Path("d"), keys=KeySettings(seal_file=Path("/k"))).seal_file == Path("/k")
