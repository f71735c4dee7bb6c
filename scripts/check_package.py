"""Imports every module of an installed copy of the package and starts the program from it: what is missing there is missing for users."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

PACKAGES = ("schemas", "streams", "bridges", "gateway")
START_WITHIN = 60
"""Seconds until it has served and stopped, or is killed."""


def modules(site: Path) -> list[str]:
    names = [module.name for module in pkgutil.walk_packages([str(site)]) if module.name.split(".")[0] in PACKAGES]
    # Alembic runs these by path, not by name.
    return [name for name in names if not name.endswith(".migrations.env") and ".migrations.versions." not in name]


def page(ready: str) -> str:
    """A page that the program serves from a file beside its modules."""
    http = next(word.removeprefix("http=") for word in ready.split() if word.startswith("http="))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{http}/signature", timeout=10) as answer:
        return str(answer.read().decode())


def main() -> int:
    site = Path(sys.argv[1])
    for name in modules(site):
        module = importlib.import_module(name)
        if module.__file__ is None or not Path(module.__file__).is_relative_to(site):
            raise SystemExit(f"scripts/test: {name} was not imported from the built package but from {module.__file__}")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "gateway.cli", "run", "--data", f"{folder}/data", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder) as gateway:  # noqa: S603
            guard = threading.Timer(START_WITHIN, gateway.kill)
            guard.start()
            line = gateway.stdout.readline() if gateway.stdout else ""
            shown = page(line) if line.startswith("ready ") else ""
            gateway.send_signal(signal.SIGTERM)
            code = gateway.wait()
            guard.cancel()
    if not line.startswith("ready ") or code != 0:
        raise SystemExit(f"scripts/test: the built package doesn't serve: it said {line!r} and ended with {code}")
    if "</form>" not in shown:
        raise SystemExit("scripts/test: the built package lacks the files of gateway/console: see package-data in pyproject.toml")
    print(f"package      {len(modules(site)):>6} modules import, and it serves")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
