"""What a server of ours finds in its environment."""

from __future__ import annotations

import sys

import pytest

from afa_llm.rollouts.engine_process import EngineLaunch, server_environment


def launch(**environment: str) -> EngineLaunch:
    return EngineLaunch(sys.executable, "model", None, "float32", 64, 8, ("q_proj",), environment=environment)


def test_the_launchers_variables_are_left_out_and_the_token_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "GROUP_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", "here")
    found = server_environment(launch(CUDA_VISIBLE_DEVICES="3"), "token")
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "GROUP_WORLD_SIZE"} & found.keys()
    assert (found["HF_HOME"], found["VLLM_API_KEY"], found["CUDA_VISIBLE_DEVICES"]) == ("here", "token", "3")


def test_a_server_on_a_cpu_does_not_ask_for_all_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert server_environment(launch(), "token")["VLLM_CPU_KVCACHE_SPACE"] == "1"
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")  # whoever knows better says so
    assert server_environment(launch(), "token")["VLLM_CPU_KVCACHE_SPACE"] == "8"
    assert server_environment(launch(VLLM_CPU_KVCACHE_SPACE="2"), "token")["VLLM_CPU_KVCACHE_SPACE"] == "2"
