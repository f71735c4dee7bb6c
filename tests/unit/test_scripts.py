"""The scripts' own promises: a suite that ran nothing fails, and a machine that lacks something is told in one line what to type."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

SUITES = ("unit", "contract", "conformance", "interop", "faults", "examples", "deployments", "support", "browser")


def check_suites(folder, skipped=(), missing=()):
    cases = "".join(
        f'<testcase classname="tests.{suite}.test_x" name="a">{"<skipped/>" if suite in skipped else ""}</testcase>'
        for suite in SUITES
        if suite not in missing
    )
    report = folder / "report.xml"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return subprocess.run([sys.executable, SCRIPTS / "check_suites.py", report], capture_output=True, text=True, check=False)


def test_suites_that_ran_are_counted(tmp_path):
    done = check_suites(tmp_path)
    assert done.returncode == 0
    assert [line.split() for line in done.stdout.splitlines()] == [[suite, "1", "tests", "ran"] for suite in SUITES]


@pytest.mark.parametrize("how", ["skipped", "missing"])
def test_a_suite_that_ran_nothing_fails(tmp_path, how):
    done = check_suites(tmp_path, **{how: ("faults",)})
    assert (done.returncode, done.stderr) == (1, "scripts/test: no test ran in: faults\n")


@pytest.fixture
def machine(tmp_path):
    """A checkout and a PATH with nothing but what every machine has; ``python`` is the text of its python3."""

    def run(python):
        checkout, path = tmp_path / "checkout", tmp_path / "bin"
        shutil.copytree(SCRIPTS, checkout / "scripts")
        path.mkdir()
        for tool in ("bash", "dirname", "basename", "mkdir", "rm", "cat", "env"):
            (path / tool).symlink_to(shutil.which(tool))
        if python:
            (path / "python3").write_text(f"#!{shutil.which('bash')}\n{python}\n")
            (path / "python3").chmod(0o755)
        done = subprocess.run([checkout / "scripts" / "run"], env={"PATH": str(path), "HOME": ""}, capture_output=True, text=True, check=False)
        assert not (checkout / ".venv").exists()
        return done

    return run


@pytest.mark.parametrize("python", ["", "exit 1"], ids=["no Python", "an old Python"])
def test_a_missing_python_is_one_line(machine, python):
    done = machine(python)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Python 3.11 or newer is missing" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_a_missing_venv_module_is_one_line(machine):
    done = machine('[ "$1" = -c ] && exit 0; echo "ensurepip is not available"; exit 1')
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apt install python3-venv" in done.stderr
