"""Workers of a cluster that cannot be used end in an error, and never in futures that do not resolve."""

from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE
from ray.exceptions import RayActorError

from index.errors import ClusterError
from service.runtime import ray_nodes
from service.runtime.ray_nodes import Nodes
from service.runtime.workers import Bounds

REFUSED = ClusterError("node-2 has Earmark 2, this is Earmark 1")


class Cluster:
    """A cluster whose calls return what they are told to: `begins` those of new actors, in order."""

    def __init__(self, *begins: Any) -> None:
        self.begins = list(begins)

    def told(self, call: Any, within: float | None = None) -> Any:
        if call == "begin":
            said = self.begins.pop(0) if len(self.begins) > 1 else self.begins[0]
        else:
            said = RayActorError()
        if isinstance(said, Exception):
            raise said
        return said

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def actor(*_: Any) -> Any:
            return SimpleNamespace(
                begin=SimpleNamespace(remote=lambda version: "begin"),
                do=SimpleNamespace(remote=lambda work: "do"),
            )

        ray = SimpleNamespace(
            remote=lambda cls: SimpleNamespace(
                options=lambda **_: SimpleNamespace(remote=actor),
            ),
            wait=lambda calls, timeout: (calls[:1], calls[1:]),
            kill=lambda actor: None,
        )
        monkeypatch.setattr(ray_nodes, "ray", ray)
        monkeypatch.setattr(ray_nodes, "told", self.told)


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    "begins",
    [
        (None, REFUSED),  # it was refused before it got any work
        (
            None,
            None,
            None,
            REFUSED,
        ),  # its actors were lost, and those that came back are another version
        (None, None, None, RuntimeError("the cluster is gone")),
    ],
)
def test_work_ends_with_an_error_once_no_worker_can_be_used(
    begins: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    Cluster(*begins).install(monkeypatch)
    with Nodes(2, Bounds(60.0), nothing) as nodes:
        futures = [nodes.submit(nothing) for _ in range(6)]
        errors = [it.exception(timeout=PATIENCE) for it in futures]
        assert all(isinstance(it, ClusterError) for it in errors), errors
        assert "no worker of the cluster can be used" in str(errors[0])
        late = nodes.submit(nothing).exception(timeout=PATIENCE)
        assert isinstance(late, ClusterError)
