"""The routes of rules are the administrator's, every one of them."""


async def test_every_route_of_rules_is_the_administrators(api):
    paths = {path: methods for path, methods in api.app.openapi()["paths"].items() if path.startswith("/api/v1/rules")}
    assert len(paths) == 10
    for path, methods in paths.items():
        for method in methods:
            at = path.replace("{rule_id}", "out").replace("{number}", "1")
            assert (await api.ask(method.upper(), at, json={})).status_code == 401
            assert (await api.ask(method.upper(), at, key=api.device, json={})).status_code == 403
