"""The documents speak of what is there: settings that load, files that exist, dependencies with their reason."""

import re
import tomllib
from pathlib import Path

import pytest

from gateway.settings.load import load

ROOT = Path(__file__).resolve().parents[2]


def test_the_settings_in_the_readme_are_valid(tmp_path):
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "gateway.toml"
    path.write_text("\n".join(blocks))
    settings = load({}, {}, path)
    assert settings.limits.packet == 256 * 1024
    assert len(settings.access) == 1
    assert [connection.name for connection in settings.connections] == ["main"]


def test_every_file_that_the_architecture_names_exists():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    names = {name for name in re.findall(r"`([\w./]+(?:\.py|/))`", text) if name not in ("log/", "trace/")}  # folders of data
    python = {path.name for folder in ("schemas", "streams", "bridges", "gateway") for path in (ROOT / folder).rglob("*.py")}
    missing = [name for name in names if not (ROOT / name).exists() and ("/" in name.rstrip("/") or name not in python)]
    assert [name for name in missing if name != "migrations/"] == []


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    section = (ROOT / "ARCHITECTURE.md").read_text().split("## Dependencies, and why")[1].split("##")[0]
    for dependency in project["dependencies"]:
        assert re.split(r"[<>=\[]", dependency)[0] in section


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_between_documents_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
        assert (ROOT / target).exists(), target
