"""An HTTP server with faults to order: in front of a real engine, or alone with scores by a formula.

It is the one fake of these tests: a reply that gets lost or a 500 can't be had from a healthy engine.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from afa_llm.rollouts.vllm_client import MARK, EngineClient

BASE = "base"


def formula(model: str, token_ids: list[int], token: int) -> float:
    """A score that depends on all that was asked."""
    return -((sum(place * ids for place, ids in enumerate(token_ids, 1)) * 31 + token * 7 + len(model)) % 997) / 100


class FaultyServer:
    """`faults`: what happens to the next calls of `/v1/completions`, or of the path in `faulty_path`; then all is well.

    lose: the engine answers, the reply is lost. 500. hang: no reply while `released` is not set. other model, missing,
    nan: replies that are wrong. `prompts`: how often each was answered.
    """

    def __init__(self, behind: EngineClient | None = None) -> None:
        self.behind, self.faults, self.faulty_path = behind, deque[str](), "/v1/completions"
        self.prompts: Counter[tuple[int, ...]] = Counter()
        self.calls: Counter[str] = Counter()
        self.adapters: dict[str, str] = {}
        self.released = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.handle(self, None)

            def do_POST(self) -> None:
                outer.handle(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def client(self) -> EngineClient:
        return EngineClient(f"http://127.0.0.1:{self.server.server_port}", self.behind.token if self.behind else "")

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler, content: bytes | None) -> None:
        body = json.loads(content) if content else {}
        with self._lock:
            self.calls[handler.path] += 1
            fault = self.faults.popleft() if self.faults and handler.path == self.faulty_path else ""
        if fault == "hang":
            self.released.wait(60)
            return
        status, reply = (500, {"error": "planted"}) if fault == "500" else self._answer(handler, body, content)
        if fault == "lose":
            return
        if status == 200 and fault:
            reply = spoil(reply, fault)
        raw = json.dumps(reply).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], content: bytes | None) -> tuple[int, Any]:
        if handler.path == "/v1/completions":
            with self._lock:
                self.prompts.update(tuple(prompt) for prompt in body["prompt"])
        return self._forward(handler, content) if self.behind else self._formula(handler.path, body)

    def _forward(self, handler: BaseHTTPRequestHandler, content: bytes | None) -> tuple[int, Any]:
        assert self.behind
        headers = {"Content-Type": "application/json", "Authorization": handler.headers.get("Authorization", "")}
        request = urllib.request.Request(self.behind.address + handler.path, content, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                raw, status = response.read().decode(), response.status
        except urllib.error.HTTPError as error:
            raw, status = error.read().decode(), error.code
        return status, json.loads(raw) if raw[:1] == "{" else raw

    def _formula(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            cards = [{"id": BASE}, *({"id": name, "parent": BASE} for name in self.adapters)]
            return 200, {"data": cards}
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.adapters or not body["lora_path"]:
                return 400, {"error": "already loaded, or no path"}
            self.adapters[body["lora_name"]] = body["lora_path"]
        elif path == "/v1/unload_lora_adapter":
            if self.adapters.pop(body["lora_name"], None) is None:
                return 404, {"error": "no such adapter"}
        elif path == "/v1/completions":
            if body["model"] != BASE and body["model"] not in self.adapters:
                return 404, {"error": f"no model {body['model']}"}
            return 200, {
                "model": body["model"],
                "choices": [choice(body, index) for index in range(len(body["prompt"]))],
            }
        return 200, ""


def choice(body: dict[str, Any], index: int) -> dict[str, Any]:
    ids = body["prompt"][index]
    scores = {f"{MARK}{token}": formula(body["model"], ids, token) for token in body["logprob_token_ids"]}
    return {"index": index, "logprobs": {"top_logprobs": [scores]}}


def spoil(reply: dict[str, Any], fault: str) -> dict[str, Any]:
    if fault == "other model":
        return reply | {"model": "another"}
    if fault == "missing":
        return reply | {"choices": reply["choices"][1:]}
    if fault == "twice":
        return reply | {"choices": [reply["choices"][0], *reply["choices"][:-1]]}
    if fault == "nan":
        scores = reply["choices"][0]["logprobs"]["top_logprobs"][0]
        scores |= dict.fromkeys(scores, float("nan"))
    return reply
