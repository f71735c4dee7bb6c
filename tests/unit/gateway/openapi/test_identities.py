"""Pages of what custom authentication has: each entry once, whatever is deleted meanwhile, and an end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.testbed import Testbed
from tests.unit.gateway.openapi.test_endpoint import Site, code

IDENTITY = {"Secret": "s", "SignMode": "ORIGIN"}
PERMISSION = {"PermitAction": "PUB", "Effect": "ALLOW"}
QUERIES = ("QueryCustomAuthIdentity", "QueryCustomAuthPermission", "QueryCustomAuthConnectBlack")
LONGEST = "\U0001f600" * 64


@pytest.fixture
def site(bed: Testbed) -> Site:
    """Users u0 to u4, of u0 clients c0 to c4 as well, and as many rules and blocked clients."""
    site = Site(bed)
    for number in range(5):
        site.call("AddCustomAuthIdentity", Username=f"u{number}", IdentityType="USER", **IDENTITY)
        site.call("AddCustomAuthIdentity", Username="u0", IdentityType="CLIENT", ClientId=f"c{number}", **IDENTITY)
        site.call("AddCustomAuthPermission", Identity="u1", IdentityType="USER", Topic=f"t{number}/#", **PERMISSION)
        site.call("AddCustomAuthPermission", Identity=f"c{number}", IdentityType="CLIENT", Topic="t0/#", **PERMISSION)
        site.call("AddCustomAuthConnectBlack", ClientId=f"c{number}")
    return site


def word(row: dict[str, Any]) -> str:
    """What tells a row from the others."""
    if "SignMode" in row:
        return f"{row['Username']} {row['ClientId']}".strip()
    return f"{row['Identity']} {row['Topic']}" if "Topic" in row else row["ClientId"]


def pages(site: Site, query: str, size: int, **fields: str) -> list[list[str]]:
    found, token = [], ""
    while True:
        data = site.call(query, Size=str(size), NextToken=token, **fields)["Data"]
        found.append([word(row) for row in data["Results"]])
        token = data["NextToken"]
        if not token:
            return found
        assert len(found) < 20


CLIENTS = [f"c{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("query", "fields", "expected"),
    [
        (QUERIES[0], {}, [f"u0 {client}" for client in CLIENTS] + ["u0", "u1", "u2", "u3", "u4"]),
        (QUERIES[0], {"IdentityType": "USER"}, ["u0", "u1", "u2", "u3", "u4"]),
        (QUERIES[0], {"Username": "u0"}, [f"u0 {client}" for client in CLIENTS] + ["u0"]),
        (QUERIES[0], {"Username": "u"}, []),
        (QUERIES[0], {"ClientId": "c3"}, ["u0 c3"]),
        (QUERIES[1], {}, [f"{client} t0/#" for client in CLIENTS] + [f"u1 t{number}/#" for number in range(5)]),
        (QUERIES[1], {"IdentityType": "USER"}, [f"u1 t{number}/#" for number in range(5)]),
        (QUERIES[1], {"Identity": "c1"}, ["c1 t0/#"]),
        (QUERIES[1], {"Identity": "u"}, []),
        (QUERIES[1], {"Topic": "t0/#"}, [f"{client} t0/#" for client in CLIENTS] + ["u1 t0/#"]),
        (QUERIES[2], {}, CLIENTS),
        (QUERIES[2], {"ClientId": "c1"}, ["c1"]),
        (QUERIES[2], {"ClientId": "c"}, []),
    ],
)
def test_pages_have_each_entry_once_and_end(site: Site, query: str, fields: dict[str, str], expected: list[str]) -> None:
    for size in (1, 2, 5, 100):
        found = pages(site, query, size, **fields)
        assert [row for page in found for row in page] == expected
        assert [len(page) for page in found[:-1]] == [size] * (len(found) - 1)
        assert found[-1] or not expected, "an empty page says that the one before was not the last"


def test_what_is_deleted_between_pages_hides_nothing_else(site: Site) -> None:
    token = site.call(QUERIES[1], Size="2", IdentityType="USER")["Data"]["NextToken"]
    for topic in ("t0/#", "t1/#"):
        site.call("DeleteCustomAuthPermission", Identity="u1", IdentityType="USER", Topic=topic)
    rows = site.call(QUERIES[1], Size="2", IdentityType="USER", NextToken=token)["Data"]["Results"]
    assert [row["Topic"] for row in rows] == ["t2/#", "t3/#"]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("token", ["zzz", "0", "ff", "é", "-1"])
def test_a_token_that_was_not_given_out_is_refused(site: Site, query: str, token: str) -> None:
    assert code(site.send(site.make(query, Size="1", NextToken=token)), 400) == "InvalidParameter.NextToken"


def test_the_longest_names_have_pages_too(site: Site) -> None:
    for name in (LONGEST, LONGEST[1:] + "~"):
        site.call("AddCustomAuthIdentity", Username=name, IdentityType="CLIENT", ClientId=LONGEST, **IDENTITY)
        site.call("AddCustomAuthConnectBlack", ClientId=name)
        site.call("AddCustomAuthPermission", Identity=name, IdentityType="USER", Topic="\U0001f600" * 1_022 + "/#", **PERMISSION)
    for query in QUERIES:
        rows = [row for page in pages(site, query, 1) for row in page]
        assert len(rows) == len(set(rows))
        assert sum(LONGEST[1:] in row for row in rows) == 2


def test_client_ids_with_credentials_are_paged_by_number_and_by_token(site: Site) -> None:
    for number in (3, 1, 0, 4, 2):
        site.call("RegisterDeviceCredential", ClientId=f"GID_aaa1@@@{number}")
        site.call("RegisterDeviceCredential", ClientId=f"GID_aaa@@@{number}")
    site.call("UnRegisterDeviceCredential", ClientId="GID_aaa@@@1")

    def page(**fields: str) -> tuple[str, str, str]:
        found = site.call("ListDeviceCredentialClientId", GroupId="GID_aaa", PageSize="3", **fields)["DeviceCredentialClientIdList"]
        return "".join(client.removeprefix("GID_aaa@@@") for client in found["ClientIdList"]), found["Total"], found["NextToken"]

    assert page() == page(PageNo="1") == ("023", "4", "GID_aaa@@@3")
    assert page(NextToken="GID_aaa@@@3") == page(PageNo="2") == ("4", "4", "")
    assert page(PageNo="3") == page(NextToken="GID_b") == ("", "4", "")
