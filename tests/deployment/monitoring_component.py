"""The monitoring component's copies from docker/: the alert rules and the dashboards.

kustomize reads nothing outside of a component's folder and makes no PrometheusRule, so the files
are written there:  python -m tests.deployment.monitoring_component
"""

import shutil
import textwrap
from pathlib import Path

from tests.deployment.manifests import KUBERNETES
from tests.research_data import PROJECT

COMPONENT = KUBERNETES / "components" / "monitoring"
RULES = PROJECT / "docker" / "prometheus" / "rules.yml"
DASHBOARDS = PROJECT / "docker" / "grafana" / "dashboards"
REMEDY = "run python -m tests.deployment.monitoring_component; its kustomization names dashboards"
_HEAD = """\
# Written by tests/deployment/monitoring_component.py from docker/prometheus/rules.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: cofine
  labels:
    app.kubernetes.io/name: cofine
    app.kubernetes.io/component: service
spec:
"""


def prometheus_rule() -> str:
    """The PrometheusRule with the groups of docker/prometheus/rules.yml, comments included."""
    return _HEAD + textwrap.indent(RULES.read_text("utf-8").removeprefix("---\n"), "  ")


def dashboards() -> list[Path]:
    """The dashboards in docker/grafana/dashboards, by name."""
    return sorted(DASHBOARDS.glob("*.json"))


def write() -> None:
    """Write the component's files anew."""
    (COMPONENT / "prometheus-rule.yaml").write_text(prometheus_rule(), "utf-8")
    shutil.rmtree(COMPONENT / "dashboards", ignore_errors=True)
    (COMPONENT / "dashboards").mkdir()
    for path in dashboards():
        shutil.copy(path, COMPONENT / "dashboards")


if __name__ == "__main__":
    write()
