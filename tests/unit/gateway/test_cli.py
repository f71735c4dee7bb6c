"""The command line without a gateway: exit codes, check-config, and what never gets as far as a start."""

import sys
import types

import pytest

from gateway import cli
from schemas.errors import StartError
from schemas.settings import Address


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("SLUICEWAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def started(monkeypatch):
    """What ``run`` was called with, with the log's settings behind them; a test may make it raise."""
    monkeypatch.setattr(cli.logs, "configure", lambda *given: calls.append(given))
    calls = []
    module = types.ModuleType("gateway.app")
    module.outcome = 0

    def run(settings):
        calls.append(settings)
        if isinstance(module.outcome, BaseException):
            raise module.outcome
        return module.outcome

    module.run = run
    monkeypatch.setitem(sys.modules, "gateway.app", module)
    calls_and_module = types.SimpleNamespace(calls=calls, module=module)
    return calls_and_module


def test_run_starts_with_the_settings(started, tmp_path):
    argv = [
        "run",
        "--data",
        str(tmp_path),
        "--mqtt",
        "127.0.0.1:0",
        "--mqtt",
        "[::1]:0",
        "--http",
        "127.0.0.1:0",
        "--anonymous",
        "--log-level",
        "debug",
    ]
    assert cli.main(argv) == 0
    [log, settings] = started.calls
    assert log == ("debug", "text")
    assert settings.data == tmp_path
    assert settings.mqtt == (Address("127.0.0.1", 0), Address("::1", 0))
    assert (settings.anonymous, settings.logging.level) == (True, "debug")


def test_workers_are_run_by_their_supervisor(started, monkeypatch, tmp_path):
    (tmp_path / "f.toml").write_text(
        '[connections.b]\nkind = "kafka"\naddress = "a:1"\n[log]\nkind = "kafka"\nconnection = "b"\n'
        '[store]\nurl = "postgresql://d/d"\n[node]\nmany = true\n'
    )
    module = types.ModuleType("gateway.workers")
    module.supervise = lambda settings: 40 + settings.node.workers
    monkeypatch.setitem(sys.modules, "gateway.workers", module)
    argv = ["run", "--config", str(tmp_path / "f.toml")]
    assert cli.main([*argv, "--workers", "2"]) == 42
    assert len(started.calls) == 1, "the log's settings alone"
    assert cli.main([*argv, "--workers", "1"]) == 0


def test_a_flag_can_take_back_what_the_file_says(started, tmp_path):
    (tmp_path / "f.toml").write_text("anonymous = true")
    assert cli.main(["run", "--config", str(tmp_path / "f.toml"), "--no-anonymous"]) == 0
    assert not started.calls[1].anonymous


@pytest.mark.parametrize(
    ("outcome", "code", "err"),
    [
        (0, 0, ""),
        (7, 7, ""),
        (StartError("mqtt: can't listen\non 127.0.0.1:1"), 2, "sluiceway: mqtt: can't listen on 127.0.0.1:1\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_run_comes_to_is_the_exit_code(started, capsys, outcome, code, err):
    started.module.outcome = outcome
    assert cli.main(["run"]) == code
    assert capsys.readouterr().err == err


def test_a_broken_setting_is_one_line_and_starts_nothing(started, capsys, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_OFLINE_PACE", "x")
    assert cli.main(["run", "--http", "nonsense"]) == 2
    assert started.calls == []
    assert capsys.readouterr().err.count("\n") == 1


def test_check_config_names_every_problem(started, capsys, tmp_path):
    (tmp_path / "f.toml").write_text('preset = "fast"\nzzz = 1')
    assert cli.main(["check-config", "--config", str(tmp_path / "f.toml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" ")[1] for line in err.splitlines()] == ["zzz", "preset"]
    assert started.calls == []


def test_check_config_of_a_file_that_is_not_there(capsys, tmp_path):
    assert cli.main(["check-config", "--config", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err == f"sluiceway: {tmp_path}/none.toml can't be read: No such file or directory\n"


def test_check_config_is_content(capsys, tmp_path):
    (tmp_path / "f.toml").write_text('[offline]\npace = "batches"')
    assert cli.main(["check-config", "--config", str(tmp_path / "f.toml")]) == 0
    assert capsys.readouterr().out == "OK\n"


def test_check_config_writes_nothing(tmp_path):
    assert cli.main(["check-config", "--data", str(tmp_path / "data")]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["run", "--nonsense"],
        ["run", "--mqt", "x"],
        ["key"],
        ["pub"],
        ["pub", "-t", "a", "-q", "3"],
        ["sub", "-t", "a", "--count", "0"],
        ["sub", "-t", "a", "--count", "x"],
    ],
)
def test_wrong_usage_is_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert "usage: sluiceway" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["key", "create", "--help"], ["pub", "--help"], ["--version"]])
def test_help_and_version(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 0
    assert "sluiceway" in capsys.readouterr().out
