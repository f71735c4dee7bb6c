"""The metrics page: every counter and gauge is on it, under a name that Prometheus takes."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.api.metrics import Gauges, MetricsPage
from gateway.counters import Counters


def samples(counters, gauges):
    page = MetricsPage(counters, lambda: gauges, version="1.2", preset="standard").page()
    families = text_string_to_metric_families(page.decode())
    return {(sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples}


def test_every_counter_is_on_the_page():
    counters = Counters()
    for number, name in enumerate(Counters.__slots__, start=1):
        if isinstance(getattr(counters, name), int):
            setattr(counters, name, number)
        else:
            getattr(counters, name)["some reason"] = number
    found = samples(counters, Gauges())
    for number, name in enumerate(Counters.__slots__, start=1):
        plain, labelled = (f"sluiceway_{name}_total",), (f"sluiceway_{name}_total", "some reason")
        assert found.get(plain, found.get(labelled)) == number, name


def test_every_gauge_is_on_the_page():
    names = Gauges.__struct_fields__
    found = samples(Counters(), Gauges(**{name: number for number, name in enumerate(names)}))
    assert {name: found[(f"sluiceway_{name}",)] for name in names} == {name: number for number, name in enumerate(names)}


def test_version_and_process_are_on_the_page():
    found = samples(Counters(), Gauges(ready=False))
    assert found[("sluiceway_info", "1.2", "standard")] == 1
    assert found[("sluiceway_ready",)] == 0
    assert ("process_resident_memory_bytes",) in found


def test_reasons_are_escaped():
    counters = Counters()
    counters.refused['a "b"\n\\c'] = 2
    assert samples(counters, Gauges())[("sluiceway_refused_total", 'a "b"\n\\c')] == 2


def test_living_nodes_are_counted_by_role():
    page = MetricsPage(Counters(), Gauges, roles=lambda: {"gateway": 2, "bridge": 0}, version="1.2", preset="standard").page().decode()
    assert 'sluiceway_role_nodes{role="gateway"} 2.0' in page
    assert 'sluiceway_role_nodes{role="bridge"} 0.0' in page
