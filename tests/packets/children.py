# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes of the lab that are Python themselves: each runs in one network namespace and answers questions over a socket."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

CLONE_NEWNET = 0x40000000


def enter(namespace: str) -> None:
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns", namespace)
    os.close(handle)


class Child:
    """Runs `make()` in a namespace; its public methods can be called from here (`child.call("count", 1)`).

    An object with a method `work` gets a thread of its own for it.
    """

    def __init__(self, namespace: str, make: Callable[[], Any]) -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            self._serve(namespace, make, theirs)
        theirs.close()
        self.call("__ready__")

    @staticmethod
    def _serve(namespace: str, make: Callable[[], Any], channel: socket.socket) -> None:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with its parent
            enter(namespace)
            worker = make()
            if hasattr(worker, "work"):
                threading.Thread(target=worker.work, daemon=True).start()
            while True:
                request = _receive(channel)
                if request is None:
                    os._exit(0)
                name, arguments = request
                try:
                    answer = (True, None if name == "__ready__" else getattr(worker, name)(*arguments))
                except Exception:
                    answer = (False, traceback.format_exc())
                _send(channel, answer)
        except BaseException:
            with contextlib.suppress(OSError):
                _send(channel, (False, traceback.format_exc()))
            os._exit(1)

    def call(self, name: str, *arguments: Any) -> Any:
        _send(self.socket, (name, arguments))
        answer = _receive(self.socket)
        if answer is None:
            raise RuntimeError(f"{name}: the child is gone")
        good, value = answer
        if not good:
            raise RuntimeError(value)
        return value

    def end(self, how: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, how)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.socket.close()


def _send(channel: socket.socket, value: Any) -> None:
    data = pickle.dumps(value)
    channel.sendall(struct.pack("!I", len(data)) + data)


def _receive(channel: socket.socket) -> Any:
    head = _exactly(channel, 4)
    if head is None:
        return None
    body = _exactly(channel, struct.unpack("!I", head)[0])
    return None if body is None else pickle.loads(body)


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        more = channel.recv(count - len(data))
        if not more:
            return None
        data += more
    return data
