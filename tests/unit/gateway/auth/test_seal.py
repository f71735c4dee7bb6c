"""Secrets at rest: what is sealed opens with its key and its name only, and the key file is its owner's alone."""

import pytest

from gateway.auth.seal import load_seal, read_private, write_private
from schemas.errors import StartError


def test_a_sealed_secret_opens_again_after_a_restart(tmp_path):
    sealed = load_seal(tmp_path / "seal.key", create=True).seal("s3cret", "device key A")
    assert b"s3cret" not in sealed
    assert load_seal(tmp_path / "seal.key", create=False).unseal(sealed, "device key A") == "s3cret"


def test_sealing_twice_gives_different_bytes(tmp_path):
    seal = load_seal(tmp_path / "seal.key", create=True)
    assert seal.seal("same", "name") != seal.seal("same", "name")


def test_a_secret_under_another_name_does_not_open(tmp_path):
    seal = load_seal(tmp_path / "seal.key", create=True)
    sealed = seal.seal("s3cret", "device key A")
    with pytest.raises(StartError, match="administrator key A can't be opened"):
        seal.unseal(sealed, "administrator key A")


@pytest.mark.parametrize("index", range(0, 40, 7))
def test_every_changed_byte_is_noticed(tmp_path, index):
    seal = load_seal(tmp_path / "seal.key", create=True)
    sealed = bytearray(seal.seal("0123456789", "name"))
    sealed[index % len(sealed)] ^= 1
    with pytest.raises(StartError):
        seal.unseal(bytes(sealed), "name")


def test_truncated_secrets_are_refused(tmp_path):
    seal = load_seal(tmp_path / "seal.key", create=True)
    sealed = seal.seal("0123456789", "name")
    for length in range(len(sealed)):
        with pytest.raises(StartError):
            seal.unseal(sealed[:length], "name")


def test_the_key_file_is_private_and_never_replaced(tmp_path):
    path = tmp_path / "seal.key"
    load_seal(path, create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    load_seal(path, create=True)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["seal.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_file_that_others_may_use_stops_the_start(tmp_path, mode):
    path = tmp_path / "seal.key"
    load_seal(path, create=True)
    path.chmod(mode)
    with pytest.raises(StartError, match=f"mode 0{mode:o}.*chmod 600"):
        load_seal(path, create=False)


def test_a_missing_key_file_is_not_made_again_once_something_is_sealed(tmp_path):
    with pytest.raises(StartError, match="seal.key is missing.*keys.seal_file"):
        load_seal(tmp_path / "seal.key", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"hello", b"AAAA\n", b"\xff\xfe", b"=" * 44])
def test_what_is_no_key_file_is_named(tmp_path, content):
    write_private(tmp_path / "seal.key", content)
    with pytest.raises(StartError, match="is not a key file"):
        load_seal(tmp_path / "seal.key", create=False)


def test_a_folder_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(StartError, match="seal.key"):
        load_seal(tmp_path / "nowhere" / "seal.key", create=True)


def test_a_private_file_is_replaced_whole_over_a_left_draft(tmp_path):
    (tmp_path / "file.new").write_bytes(b"left by a crash")
    (tmp_path / "file.new").chmod(0o666)
    write_private(tmp_path / "file", b"whole")
    assert read_private(tmp_path / "file") == b"whole"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
