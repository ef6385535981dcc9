"""`python -m tests.fleet.late HOW`: a daemon's host loses its link, then asks an engine for something. It takes it back
(`cancelled`), or stands still from then on (`frozen`). Prints how many requests the engine got when the link is back.

To be started by what `bench.fleet.net.inside` returns.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from bench.fleet.net import Host, Network
from scalesim_adapters.http import UNHEARD_SECONDS

PORT = 8000
# The kernel sends what is lost again after 0.2 s and twice as long each time: by then it would have come.
WITHIN = 8.0

ENGINE = f"""
import socket
with socket.create_server(("0.0.0.0", {PORT})) as door:
    print("ready", flush=True)
    line, _ = door.accept()
    while head := line.recv(65536):
        print(head.split()[0].decode(), flush=True)
        line.send(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{{}}")
"""
DAEMON = """
import asyncio, sys
from scalesim_adapters.http import Http

async def main():
    http = Http(sys.argv[1], "a", None, None)
    await http.json("GET", "/health", deadline=5)
    print("connected", flush=True)
    sys.stdin.readline()
    call = asyncio.create_task(http.send("POST", "/v1/completions", {"prompt": [1, 2]}, deadline=60))
    await asyncio.sleep(0.2)
    print("sent", flush=True)
    sys.stdin.readline()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    print("cancelled", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


def start(host: Host, code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*host.command, sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return said(process)


def main(how: str) -> None:
    network = Network()
    engine_host, daemon_host = network.host("engine"), network.host("daemon")
    engine = start(engine_host, ENGINE)
    assert said(engine) == "ready"
    daemon = start(daemon_host, DAEMON, f"http://{engine_host.address}:{PORT}")
    assert (said(engine), said(daemon)) == ("GET", "connected")
    with network.unplugged(daemon_host):
        assert told(daemon) == "sent"
        if how == "cancelled":
            assert told(daemon) == "cancelled"
        else:
            daemon.send_signal(signal.SIGSTOP)
        time.sleep(UNHEARD_SECONDS + 1)
    time.sleep(WITHIN)
    for process in (daemon, engine):
        process.kill()
    assert engine.stdout is not None
    print(len(engine.stdout.read().split()))


if __name__ == "__main__":
    main(sys.argv[1])
