"""A fake dashboard, a client of it, and a configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo_ray import Client
from orpo_ray.client import operations
from tests.unit.client.dashboard import TOKEN, FakeDashboard, fake_dashboard


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No address and no token of whoever runs the tests; and no patience."""
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(operations, "POLL_S", 0.01)
    monkeypatch.setattr(operations, "_UNREACHED_S", 0.01)


@pytest.fixture
def dashboard() -> Iterator[FakeDashboard]:
    with fake_dashboard() as board:
        yield board


@pytest.fixture
def client(dashboard: FakeDashboard) -> Iterator[Client]:
    with Client(dashboard.url, TOKEN) as client:
        yield client


@pytest.fixture
def config() -> dict[str, Any]:
    return {
        "name": "toy",
        "task": {"name": "arithmetic", "test_size": 10},
        "teacher": {"model": "models/teacher"},
        "student": {"model": "models/student"},
        "storage": {"path": "/storage/runs"},
    }
