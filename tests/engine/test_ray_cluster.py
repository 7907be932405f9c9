"""Connecting to Ray: a start that fails is tried again, and what Ray raises becomes one sentence. Ray itself is not started."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dataprep.common.errors import StoreError
from dataprep.engine.ray_cluster import RayExecutor


class LocalRayletDied(Exception):
    pass


class FakeRay(ModuleType):
    """Ray whose first `failures` starts fail, and whose tasks are lost."""

    util = SimpleNamespace(register_serializer=lambda *args, **options: None)

    def __init__(self, failures: int) -> None:
        super().__init__("ray")
        self.failures, self.addresses = failures, list[str]()

    def init(self, address: str, **options: Any) -> None:
        self.addresses.append(address)
        if len(self.addresses) <= self.failures:
            raise Exception("The current node timed out during startup. More text.\nA second line.")

    def shutdown(self) -> None:
        """Nothing was started."""

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **options: Any) -> Any:
        return lambda function: SimpleNamespace(remote=lambda *task: "reference")

    def get(self, reference: str) -> Any:
        raise LocalRayletDied

    def cancel(self, reference: str, force: bool) -> None:
        """No task runs."""


def use(monkeypatch: pytest.MonkeyPatch, failures: int) -> FakeRay:
    ray, faults = FakeRay(failures), ModuleType("ray.exceptions")
    vars(faults).update(
        LocalRayletDiedError=LocalRayletDied, RayError=type("Any", (Exception,), {}), RayTaskError=KeyError
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", faults)
    return ray


def test_a_cluster_on_this_machine_is_started_again_after_a_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = use(monkeypatch, failures=1)
    assert RayExecutor(None, None).workers == 2
    assert ray.addresses == ["local", "local"]


def test_a_cluster_that_does_not_start_twice_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, failures=2)
    sentence = r"^Ray cannot be started on this machine \(The current node timed out during startup\. More text\)\.$"
    with pytest.raises(StoreError, match=sentence):
        RayExecutor(None, 1)


def test_a_cluster_at_an_address_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = use(monkeypatch, failures=2)
    with pytest.raises(StoreError, match=r"^Ray cannot be reached at 10\.0\.0\.1:6379 \("):
        RayExecutor("10.0.0.1:6379", None)
    assert len(ray.addresses) == 1


def test_losing_ray_itself_during_a_task_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, failures=0)
    with pytest.raises(StoreError, match=r"^Ray's own process on this machine was lost: build again\.$"):
        list(RayExecutor(None, 1).map(len, ["a"]))
