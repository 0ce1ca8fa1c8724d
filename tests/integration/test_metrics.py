"""The metrics listener: what it answers, also while the process is not ready, and when its port is taken."""

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from octollm.errors import SettingsError
from octollm.observability.metrics import MetricsServer
from octollm.supervision import Supervisor


def get(server: MetricsServer, path: str) -> httpx.Response:
    return httpx.get(f"http://{server.address}{path}", trust_env=False, timeout=60)


def test_metrics_health_and_readiness():
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    against: list[str] = ["starting"]
    with MetricsServer("127.0.0.1:0", lambda: against, Supervisor(), registry) as server:
        assert "things_total 3.0" in get(server, "/metrics").text
        assert get(server, "/healthz").status_code == 200
        assert (get(server, "/readyz").status_code, get(server, "/readyz").json()["reasons"]) == (503, ["starting"])
        against.clear()
        assert get(server, "/readyz").json() == {"ready": True, "reasons": []}
        assert get(server, "/nonsense").status_code == 404


def test_a_taken_port_says_which_setting_to_change():
    with (
        MetricsServer("127.0.0.1:0", list, Supervisor(), CollectorRegistry()) as first,
        pytest.raises(SettingsError, match="OCTOLLM_WORKER_METRICS_LISTEN"),
    ):
        MetricsServer(first.address, list, Supervisor(), CollectorRegistry())
