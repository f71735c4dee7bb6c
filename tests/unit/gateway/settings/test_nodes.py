"""`[node]`: what a node is told of roles, workers and addresses that don't go together, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.load import Problems, load
from schemas.settings import ROLES

MANY = (
    '[connections.backbone]\nkind = "kafka"\naddress = "a:9092"\n[log]\nkind = "kafka"\nconnection = "backbone"\n'
    '[store]\nurl = "postgresql://sluiceway@db/sluiceway"\n[node]\nmany = true\n'
)
REACHABLE = "HOST:PORT that clients can reach, with a port from 1 to 65535, like mqtt-2.example.org:1883"

ALONE = {
    'roles = ["gateway"]': (
        "node.roles: a node alone has all roles; leave node.roles out, or set node.many = true and have the others on other nodes"
    ),
    "workers = 2": "node.workers: 2 processes are as many nodes; set node.many = true with all that it needs, or workers = 1",
    'advertise = "a:1"': "node.advertise: a node alone has no others that could send clients to it; leave it out, or set node.many = true",
    "roles = []": "node.roles: it is empty; name at least one of gateway, bridge, api, router, or leave it out for all",
    'roles = ["gateways"]': "node.roles (FILE): ['gateways'] is refused, it must be one of gateway, bridge, api, router",
    "workers = 0": "node.workers (FILE): 0 is refused, it must be a whole number from 1 to 64",
    "workers = 65": "node.workers (FILE): 65 is refused, it must be a whole number from 1 to 64",
    'moved_to = "elsewhere"': f"node.moved_to (FILE): 'elsewhere' is refused, it must be {REACHABLE}",
    'moved_to = "elsewhere:0"': f"node.moved_to (FILE): 'elsewhere:0' is refused, it must be {REACHABLE}",
    'advertise = "0.0.0.0:1883"': f"node.advertise (FILE): '0.0.0.0:1883' is refused, it must be {REACHABLE}",
    'advertise = "[::]:1883"': f"node.advertise (FILE): '[::]:1883' is refused, it must be {REACHABLE}",
    "advertise = 1883": f"node.advertise (FILE): 1883 is refused, it must be {REACHABLE}",
}
OF_MANY = {
    'advertise = "a:1"\nmoved_to = "a:1"': "node.moved_to: a:1 is this node itself (node.advertise); name the one to go to, or leave it out",
    f'workers = 2\nid = "{"x" * 62}"': "node.id: workers add their number to it; give at most 61 characters",
}


def problems(tmp_path: Path, content: str) -> list[str]:
    file = tmp_path / "f.toml"
    file.write_text(content)
    with pytest.raises(Problems) as refused:
        load({}, {}, file)
    return [problem.replace(str(file), "FILE") for problem in refused.value.problems]


@pytest.mark.parametrize("text", ALONE)
def test_what_a_node_alone_is_told(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, f"[node]\n{text}\n") == [ALONE[text]]


@pytest.mark.parametrize("text", OF_MANY)
def test_what_one_of_many_is_told(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, f"{MANY}{text}\n") == [OF_MANY[text]]


def test_workers_need_http_ports_of_their_own(tmp_path: Path) -> None:
    assert problems(tmp_path, f'http = "127.0.0.1:1881"\n{MANY}workers = 3\n') == [
        "http: 3 workers listen on the ports 1881 to 1883, and mqtt has 127.0.0.1:1883; give other ports"
    ]
    assert problems(tmp_path, f'http = "127.0.0.1:65535"\n{MANY}workers = 2\n') == [
        "http: 2 workers listen on the ports 65535 to 65536; give a port of at most 65534, or 0"
    ]
    assert load({"http": "127.0.0.1:65535", "workers": None}, {}, None).http.port == 65_535


def test_what_one_of_many_may_be_told_to_be(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(f'mqtt = []\n{MANY}roles = ["api", "bridge"]\nmoved_to = "[::1]:1883"\n')
    node = load({"node.workers": "4"}, {}, tmp_path / "f.toml").node
    assert (node.roles, node.workers, node.moved_to) == (("api", "bridge"), 4, "[::1]:1883")
    assert load({}, {"SLUICEWAY_NODE_ROLES": "router,gateway,bridge,api"}).node.roles == ("router", *(r for r in ROLES if r != "router"))
