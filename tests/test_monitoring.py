"""examples/monitoring: what it asks for exists, and says what the documentation says."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reconciler.metrics import Metrics, metrics_text
from tests.web_readonly import seeded
from web_readonly.metrics import FAMILIES, PREFIX, exposition
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "monitoring"
PAGE = ROOT / "docs" / "how-to" / "monitor.md"
NAME = re.compile(rf"{PREFIX}[a-z0-9_]+")
SELECTOR = re.compile(rf"({PREFIX}[a-z0-9_]+)\{{([^}}]*)\}}")


def rules() -> list[dict[str, Any]]:
    written = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    return [rule for group in written["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    return read


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


def expressions() -> list[tuple[str, str]]:
    """Return every PromQL expression with where it stands."""
    asked = [(one["name"], one["definition"]) for one in dashboard()["templating"]["list"] if "definition" in one]
    return [
        *((rule["alert"], rule["expr"]) for rule in rules()),
        *((title, target["expr"]) for title, target in targets()),
        *asked,
    ]


@pytest.fixture(scope="module")
def samples(seeded_path: Path) -> dict[str, set[str]]:
    """Metric → names of its labels, of a real exposition; histograms and counters as they are asked for."""
    own = Metrics()
    own.handshakes.labels("accepted").inc()
    own.reconciled("published", seconds=0.1)
    own.connections.labels("open").set(1)
    with closing(Reader(seeded_path)) as reader:
        text = metrics_text(own) + exposition(reader.numbers(limit=10_000, now=seeded.NOW))
    found = {PREFIX + family.name: set(family.labels) for family in FAMILIES}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def seeded_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("monitored") / "store.db"
    asyncio.run(seeded.seed(path))
    return path


def test_every_metric_that_is_asked_for_exists(samples):
    for place, expression in expressions():
        names = set(NAME.findall(expression))
        assert names or "up{" in expression, place
        assert names <= set(samples), place


def test_every_label_that_is_asked_for_exists(samples):
    for place, expression in expressions():
        for metric, matchers in SELECTOR.findall(expression):
            wanted = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - {"instance", "job"}
            assert wanted <= samples[metric], place


def test_every_label_of_a_message_comes_from_its_expression(samples):
    for rule in rules():
        known = set().union(*(samples[name] for name in NAME.findall(rule["expr"]))) | {"instance", "job"}
        for text in rule["annotations"].values():
            assert set(re.findall(r"\$labels\.(\w+)", text)) <= known, rule["alert"]


def test_every_word_that_a_rule_waits_for_is_one_that_is_told():
    words = {
        "following": {"current", "behind", "refused", "stale", "unknown"},
        "state": {"protected", "unprotected", "unknown", "without-objective", "open", "pending", "handshake"},
        "outcome": {"succeeded", "warned", "failed", "cancelled", "lost"},
    }
    for place, expression in expressions():
        for label, word in re.findall(r'(\w+)(?:=~|=)"([^"$]*)"', expression):
            assert set(word.split("|")) <= words.get(label, {word, *word.split("|")}), place


def test_every_alert_says_how_bad_it_is_and_what_is_wrong():
    names = [rule["alert"] for rule in rules()]

    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_the_documentation_lists_every_alert():
    listed = re.findall(r"^\| `(\w+)` \| (critical|warning|info) \|", PAGE.read_text(), re.MULTILINE)

    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in rules()]


def test_the_dashboard_names_no_data_source_of_its_own():
    read = dashboard()
    variables = {one["name"] for one in read["templating"]["list"]}

    assert read["schemaVersion"] >= 39
    for panel in read["panels"]:
        assert panel.get("datasource", {}).get("uid", "${datasource}") == "${datasource}"
    for title, target in targets():
        assert target["datasource"]["uid"] == "${datasource}", title
        asked = set(re.findall(r"\$\{?(\w+)", target["expr"])) - {"__rate_interval"}
        assert asked <= variables, title


def test_panels_have_a_description_and_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["description"], panel["title"]
        taken |= cells
    identities = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(identities)) == len(identities)


def test_the_scrape_configuration_asks_the_dashboard_and_loads_the_rules():
    read = yaml.safe_load((FOLDER / "prometheus.yml").read_text())

    assert read["rule_files"] == ["alerts.yaml"]
    (scrape,) = read["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["127.0.0.1:8441"]}]
    # The alert for a director that is down names the job.
    assert all(scrape["job_name"] in rule["expr"] for rule in rules() if rule["alert"] == "DirectorDown")
