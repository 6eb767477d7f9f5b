"""One engine behind an address: what is said to it over HTTP, and what its replies mean.

Token ids go in and token ids come out. Each call is one connection; asking twice for the same thing changes nothing
(scores are a function of prompt and adapter), so a call whose reply was lost is simply made again.
"""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from afa_llm.rollouts.label_scoring import ScoreRequest, Scores, sampling_parameters

MARK = "token_id:"  # before the number, where the server is asked for ids instead of text
CONTROL_SECONDS = 60.0  # a call that computes nothing: health, list, load, unload


class EngineFailureError(Exception):
    """No usable reply: connection refused or lost, time out, 5xx, or a reply that is not one. Worth another try."""

    slow = False  # whether it was time that ran out: the engine may hang


class EngineRefusalError(Exception):
    """The engine understood and said no (4xx). The same again would be refused again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class EngineClient:
    """Calls to one engine. `address`: http://host:port, or https."""

    address: str
    token: str = ""

    def alive(self) -> bool:
        """Whether it says it is healthy."""
        return not self.illness()

    def illness(self) -> str:
        """Why it does not say that it is healthy; empty where it does."""
        try:
            self._call("GET", "/health", None, 5.0)
        except (EngineFailureError, EngineRefusalError) as error:
            return str(error)
        return ""

    def models(self) -> dict[str, str]:
        """Name of each model and adapter it serves -> the base below it (empty for a base)."""
        reply = self._call("GET", "/v1/models", None, CONTROL_SECONDS)
        try:
            return {card["id"]: card.get("parent") or "" for card in reply["data"]}
        except (KeyError, TypeError, AttributeError) as error:  # something else answers there, such as a proxy
            raise EngineFailureError(f"{self.address}/v1/models: no list of models: {str(reply)[:300]}") from error

    def load_adapter(self, name: str, folder: str) -> None:
        self._call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}, CONTROL_SECONDS)

    def unload_adapter(self, name: str) -> None:
        self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name}, CONTROL_SECONDS)

    def score(self, requests: Sequence[ScoreRequest], model: str, seconds: float) -> list[Scores]:
        """Scores of requests that ask about the same tokens, in their order.

        Raises EngineFailureError and EngineRefusalError; the first also where another model answered, or not all.
        """
        parameters = sampling_parameters(requests[0])
        assert all(request.scored_ids == requests[0].scored_ids for request in requests)
        body = {
            "model": model,
            "prompt": [list(request.token_ids) for request in requests],
            "logprobs": len(requests[0].scored_ids),
            "return_tokens_as_token_ids": True,
            "add_special_tokens": False,
            **parameters,
        }
        reply = self._call("POST", "/v1/completions", body, seconds)
        return _scores_in(reply, requests, model)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float) -> Any:
        place = urlsplit(self.address)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=seconds)
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            failure = EngineFailureError(f"{self.address}: {type(error).__name__}: {error}")
            failure.slow = isinstance(error, TimeoutError)
            raise failure from error
        finally:
            connection.close()
        return _content(content, response.status, f"{self.address}{path}")


def _content(content: bytes, status: int, where: str) -> Any:
    text = content.decode(errors="replace")
    if status >= 500 or status in (408, 429):
        raise EngineFailureError(f"{where}: status {status}: {text[:300]}")
    if status >= 400:
        raise EngineRefusalError(f"{where}: status {status}: {text[:600]}", status)
    try:
        return json.loads(text) if text[:1] in ("{", "[") else text
    except json.JSONDecodeError as error:
        raise EngineFailureError(f"{where}: a reply that is no JSON: {text[:300]}") from error


def _scores_in(reply: Any, requests: Sequence[ScoreRequest], model: str) -> list[Scores]:
    """Each request's scores from its own choice, found by index; every one exactly once."""
    try:
        if reply["model"] != model:
            raise EngineFailureError(f"asked {model!r}, answered by {reply['model']!r}")
        if sorted(choice["index"] for choice in reply["choices"]) != list(range(len(requests))):
            raise EngineFailureError(f"{len(reply['choices'])} answers to {len(requests)} prompts")
        choices = {choice["index"]: choice["logprobs"]["top_logprobs"][0] for choice in reply["choices"]}
        found: list[Scores] = [
            {int(token.removeprefix(MARK)): float(logprob) for token, logprob in choices[index].items()}
            for index in range(len(requests))
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineFailureError(f"a reply of another form: {type(error).__name__}: {error}") from error
    for request, scores in zip(requests, found, strict=True):
        if any(not math.isfinite(scores.get(token, 0.0)) for token in request.scored_ids):
            raise EngineFailureError(f"scores {scores} of tokens {request.scored_ids}")
        if missing := [token for token in request.scored_ids if token not in scores]:
            raise EngineFailureError(
                f"no score of tokens {missing[:8]}, which were asked about, only of {sorted(scores)[:8]}: does it "
                "run a vLLM that knows logprob_token_ids, such as 0.32?"
            )
    return found
