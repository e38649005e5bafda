"""scripts/monitoring and the table of docs/operations.md, held against what a service really exports: by names, by
promtool, and by a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from argus_ray.core.states import Outcome
from argus_ray.gateway.monitoring.families import PARTS
from tests.gateway.test_stream_server import served
from tests.support import monitored
from tests.support.fakeray import free_port
from tests.support.gateway import METRICS_TOKEN, SCRAPER, Api, make_api

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scripts" / "monitoring"
RULES = FOLDER / "argus.rules.yml"
DASHBOARD = json.loads((FOLDER / "grafana-argus.json").read_text())
#: For one start of Prometheus on a machine that is busy.
DEADLINE_S = 120.0


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """A service where something of each kind has happened."""
    made = make_api(tmp_path)
    with made.client:
        made.actors = monitored.actors()
        alice = made.user("alice")
        made.end(made.run(made.submit(alice)), Outcome.APPLICATION, 1)
        made.run(made.submit(alice))
        made.submit(alice, nnodes=4)  # more than is free
        made.ready = dict.fromkeys(PARTS, "ok")
        made.world.store.backup_at = made.world.clock() - 60
        yield made
    made.world.close()


def families(api: Api) -> dict[str, tuple[str, set[str]]]:
    """Name -> type, and the labels of its samples."""
    found = {}
    for family in parse(api.client.get("/metrics", headers=SCRAPER).text):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + {"counter": "_total"}.get(family.type, "")
        found[name] = family.type, labels
    return found


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_documentation_lists_each_metric_with_its_type_and_labels(api: Api) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page[page.index("\n## Monitoring\n") :].split("\n## ")[1]
    rows = re.findall(r"^\| `(argus_\w+)(?:\{([\w,]+)\})?` \| (\w+) \| \S.* \|$", section, re.M)
    assert len(rows) == len({name for name, _, _ in rows})
    documented = {name: (kind, set(labels.split(",")) - {""}) for name, labels, kind in rows}
    assert documented == families(api)


def test_rules_and_dashboard_name_only_what_is_exported(api: Api) -> None:
    exported = set()
    for name, (kind, _) in families(api).items():
        exported |= {name + end for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    used = {name for text in dashboard_expressions() for name in re.findall(r"\bargus_\w+", text)}
    used |= {name for rule in alerts() for name in re.findall(r"\bargus_\w+", rule["expr"])}
    assert used <= exported and len(used) > 30
    of_ray = {name for text in dashboard_expressions() for name in re.findall(r"\bray_\w+", text)}
    assert all(name.startswith("ray_serve_") for name in of_ray) and len(of_ray) >= 4
    pictured = {name for text in dashboard_expressions() for name in re.findall(r"\bargus_[a-z_]+", text)}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in pictured}
    assert families(api).keys() - bases <= {"argus_head_file_ttl_seconds"}, "each has a place on the dashboard"


def test_each_alert_is_tested_where_it_fires_and_where_it_does_not() -> None:
    tests = yaml.safe_load((FOLDER / "argus.rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert names == {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert names == {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert all({"summary", "action"} == set(rule["annotations"]) for rule in alerts())


def test_the_dashboard_has_a_row_for_each_question_and_no_source_of_its_own() -> None:
    panels = DASHBOARD["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["Line", "GPUs by user", "Free while wanted", "Outcomes and codes", "Control plane", "HTTP"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
    spots = [
        (x, y)
        for p in (panel["gridPos"] for panel in panels)
        for x in range(p["x"], p["x"] + p["w"])
        for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(set(spots)) == len(spots), "no two panels lie over each other"


def tool(name: str) -> str:
    """Debian's, as scripts/test fetches it, or one on PATH."""
    fetched = Path(sys.prefix) / "prometheus" / "usr" / "bin" / name
    found = str(fetched) if fetched.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here (Debian: prometheus; scripts/test fetches it)")
    return found


def promtool(*arguments: str, folder: Path) -> str:
    command = [tool("promtool"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_configuration_rules_and_their_tests(tmp_path: Path) -> None:
    for file in FOLDER.glob("*.yml"):
        shutil.copy(file, tmp_path)
    (tmp_path / "argus-metrics.token").write_text(METRICS_TOKEN)
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=tmp_path)
    assert f"{len(alerts())} rules found" in promtool("check", "rules", "argus.rules.yml", folder=tmp_path)
    assert "SUCCESS" in promtool("test", "rules", "argus.rules.test.yml", folder=tmp_path)


def test_a_real_prometheus_scrapes_and_evaluates_all_of_it(api: Api, tmp_path: Path) -> None:
    program = tool("prometheus")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with served(api.app) as port:
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "1s"}
        config["scrape_configs"] = [each for each in config["scrape_configs"] if each["job_name"] == "argus"]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "argus-metrics.token").write_text(METRICS_TOKEN)
        shutil.copy(RULES, folder)
        at = f"http://127.0.0.1:{free_port()}"
        with (tmp_path / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn",
                 f"--web.listen-address={at.removeprefix('http://')}"],
                cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            _ask_all(at, lambda: (tmp_path / "prometheus.log").read_text()[-2000:])
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def _ask_all(at: str, log: Callable[[], str]) -> None:
    def get(path: str, **query: str) -> Any:
        url = f"{at}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:  # noqa: S310 - our own
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def value_of(expression: str) -> list[Any]:
        result: list[Any] = get("query", query=expression.replace("$__rate_interval", "1m"))["result"]
        return result

    def has_begun() -> bool:
        try:
            if not value_of("count_over_time(argus_build_info[5m]) >= 3"):
                return False
            return all(rule["health"] != "unknown" for group in get("rules")["groups"] for rule in group["rules"])
        except OSError:
            return False

    deadline = time.monotonic() + DEADLINE_S
    while not has_begun():
        assert time.monotonic() < deadline, log()
        time.sleep(0.1)

    [target] = get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    rules = [rule for group in get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in alerts()}
    assert [(rule["name"], rule.get("lastError", "")) for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == [], "all is well there"
    for expression in dashboard_expressions():
        found = value_of(expression)
        assert found or "ray_serve" in expression, f"nothing to see: {expression}"
    assert value_of('argus_user_gpus{user="alice"}')[0]["value"][1] == "4"
