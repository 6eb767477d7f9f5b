"""Each way in which an adapter does not arrive, planted between a real trainer's side and a real engine, is caught."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from needs import needs_vllm
from real_engine import Side, connected
from safetensors.torch import load_file, save_file

from afa_llm.errors import AfaError
from afa_llm.rollouts.adapter_sync import AdapterSync
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.fleet import Fleet
from afa_llm.rollouts.replica import Replica

pytestmark = [pytest.mark.vllm, needs_vllm]


@pytest.fixture
def service(engine: Replica, side: Side, tmp_path: Path) -> EngineService:
    """Version 1 was delivered well."""
    found = connected(Fleet([engine], engine.limits), side, tmp_path / "adapters")
    side.move(1)
    found.deliver(1)
    return found


def test_a_good_delivery_is_no_alarm(service: EngineService, side: Side) -> None:
    side.move(2)
    assert service.deliver(2)["delivery_gap"] < 1e-5


def test_an_adapter_that_is_not_loaded(service: EngineService, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fleet, "hold", lambda *_: None)
    side.move(2)
    with pytest.raises(AfaError, match="status 404"):
        service.deliver(2)


@pytest.mark.parametrize("size", [0.05, 0.002])
def test_an_adapter_that_is_loaded_but_not_used(
    service: EngineService, side: Side, monkeypatch: pytest.MonkeyPatch, size: float
) -> None:
    put = AdapterSync.put
    monkeypatch.setattr(AdapterSync, "put", lambda *given: put(*given) and "")  # asks the base
    side.move(2, size)
    with pytest.raises(AfaError, match="changes nothing in the engine: it answers like the base"):
        service.deliver(2)


def test_weights_that_are_saved_empty(service: EngineService, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    save = service.sync.save  # type: ignore[union-attr]

    def zeros(folder: Path) -> None:
        save(folder)
        path = folder / "adapter_model.safetensors"
        save_file({name: 0 * weight for name, weight in load_file(path).items()}, path)

    service.sync.save = zeros  # type: ignore[union-attr]
    side.move(2)
    with pytest.raises(AfaError, match="answers like the base"):
        service.deliver(2)


@pytest.mark.parametrize("size", [0.05, 0.05 + 1e-3])
def test_a_cache_that_holds_an_older_version(
    service: EngineService, side: Side, monkeypatch: pytest.MonkeyPatch, size: float
) -> None:
    """The name stays the same, so the engine thinks that it has the adapter."""
    monkeypatch.setattr(
        AdapterSync,
        "put",
        lambda sync, version, folder, beat: sync.fleet.hold({sync.name: str(folder)}, beat) or sync.name,
    )
    side.move(1 if size > 0.05 else 2, size)  # a small change of the same weights, or other weights
    with pytest.raises(
        AfaError, match=r"version 2 did not arrive at http\S+: the engine still answers by an older adapter"
    ):
        service.deliver(2)


def test_a_folder_of_another_run(
    service: EngineService, side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side.move(77)
    side.save(tmp_path / "other")
    write = AdapterSync.write

    def wrong(sync: AdapterSync, version: int) -> Path:
        folder = write(sync, version)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "other", folder)
        return folder

    monkeypatch.setattr(AdapterSync, "write", wrong)
    side.move(2)
    with pytest.raises(AfaError, match=r"mean \|Δp\| .* is over rollouts.probe_fail"):
        service.deliver(2)
