"""Who is online, over HTTP: some clients, a group page by page, and counts."""

import pytest

ON = {"clientId": "on/line", "online": True, "time": 1700000000000, "channelId": "c" * 32, "address": "127.0.0.1:9"}


async def test_some_clients_in_the_order_asked_for(api):
    response = await api.ask("GET", "/api/v1/statuses?client=never&client=on/line&client=off", key=api.device)
    assert response.json() == {"statuses": [{"clientId": "never", "online": False}, ON, {"clientId": "off", "online": False, "time": 7}]}


@pytest.mark.parametrize(("count", "status"), [(0, 400), (10, 200), (11, 400)])
async def test_a_batch_has_ten_at_most(api, count, status):
    query = "&".join(f"client=c{number}" for number in range(count))
    response = await api.ask("GET", "/api/v1/statuses?" + query, key=api.device)
    assert response.status_code == status
    assert status == 200 or response.json()["error"]["field"] == "query.client"


async def test_a_group_page_by_page(api):
    path = "/api/v1/groups/GID_abc/clients?limit=3"
    first = (await api.ask("GET", path, key=api.manager)).json()
    assert (first["groupId"], first["online"], first["next"]) == ("GID_abc", 1, "GID_abc@@@2")
    assert [(client["clientId"], client["online"]) for client in first["clients"]] == [
        ("GID_abc@@@0", False),
        ("GID_abc@@@1", True),
        ("GID_abc@@@2", False),
    ]
    second = (await api.ask("GET", path + "&after=GID_abc@@@2", key=api.manager)).json()
    assert [client["clientId"] for client in second["clients"]] == ["GID_abc@@@3", "GID_abc@@@4"]
    assert "next" not in second


async def test_counts_of_groups(api):
    response = await api.ask("GET", "/api/v1/online", key=api.administrator)
    assert response.json() == {"groups": [{"groupId": "GID_abc", "online": 1}, {"groupId": "GID_bcd", "online": 2}]}


@pytest.mark.parametrize(("path", "field"), [("nogroup/clients", "groupId"), ("GID_abc/clients?limit=1001", "query.limit")])
async def test_what_is_wrong_is_named(api, path, field):
    response = await api.ask("GET", "/api/v1/groups/" + path, key=api.manager)
    assert (response.status_code, response.json()["error"]["field"]) == (400, field)


@pytest.mark.parametrize("path", ["/api/v1/online", "/api/v1/groups/GID_abc/clients"])
async def test_groups_are_for_managers(api, path):
    assert (await api.ask("GET", path, key=api.device)).status_code == 403


@pytest.mark.parametrize("path", ["/api/v1/online", "/api/v1/groups/GID_abc/clients"])
async def test_nodes_that_did_not_answer_are_named(api, path):
    assert "silent" not in (await api.ask("GET", path, key=api.manager)).json()
    api.services.silent = ["two", "three"]
    assert (await api.ask("GET", path, key=api.manager)).json()["silent"] == ["two", "three"]
