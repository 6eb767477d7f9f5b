"""Can the head node be reached where the ranks will meet? It listens there for a moment, the others ring."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from afa_llm.doctor.findings import Reached


class Doorbell:
    """Listens on one address and port until `close`; tells each caller a token, so that it knows whom it reached."""

    def __init__(self, address: str, port: int, token: str) -> None:
        """Raises OSError where the port is taken, on whatever address, or the address is not this machine's."""
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with _socket(family, kind, protocol) as every:  # the ranks' store listens on all addresses: is it free there?
            every.bind(("", port))
        self._socket = _socket(family, kind, protocol)
        self._token = token.encode()
        try:
            self._socket.bind(place)
            self._socket.listen(128)
        except OSError:
            self._socket.close()
            raise
        threading.Thread(target=self._answer, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()

    def _answer(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._socket.accept()
                with caller, suppress(OSError):
                    caller.settimeout(2)
                    caller.sendall(self._token)
                    caller.shutdown(socket.SHUT_WR)
                    caller.recv(1)  # the caller hangs up first: the port is free again at once


def ring(address: str, port: int, token: str, limit_s: float) -> Reached:
    """Try to reach the doorbell from this machine."""
    began, resolved = time.monotonic(), None
    try:
        resolved = str(socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        return Reached(resolved=None, trouble=f"{address} does not resolve: {error.strerror}", seconds=None)
    try:
        with socket.create_connection((resolved, port), timeout=limit_s) as line:
            answer = line.recv(len(token))
    except TimeoutError:
        return Reached(resolved=resolved, trouble=f"no answer within {limit_s:.0f} s", seconds=None)
    except OSError as error:
        return Reached(resolved=resolved, trouble=(error.strerror or str(error)).lower(), seconds=None)
    trouble = None if answer == token.encode() else "something else than the head node answers there"
    return Reached(resolved=resolved, trouble=trouble, seconds=time.monotonic() - began)


def _socket(family: int, kind: int, protocol: int) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch's store does: TIME_WAIT is no obstacle
    return made
