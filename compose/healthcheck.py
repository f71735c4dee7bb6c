"""The image's health check: asks the gateway of this container for /healthz, where its data folder says that it listens.

Needs nothing but Python's own library. The certificate isn't checked: it names the gateway as others call it, and this call never leaves
the container. Exit code 0: it answers.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

WITHIN = 4.0
"""Seconds; the image gives the whole check 5."""


def main() -> int:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        left = json.loads((Path(os.environ["SLUICEWAY_DATA"]) / "gateway.json").read_text("utf-8"))
        with urllib.request.urlopen(f"{left['http']}/healthz", timeout=WITHIN, context=context):  # noqa: S310 - the gateway wrote it
            return 0
    except (OSError, KeyError, ValueError) as error:
        print(f"unhealthy: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - docker inspect shows it
        return 1


if __name__ == "__main__":
    sys.exit(main())
