"""Print for each address HOST:PORT whether this pod can connect to it.

A network plugin may apply network policies to a new pod only after some seconds, and allow all traffic until then: the probe
connects repeatedly, and the last result counts.
"""

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SETTLE_SECONDS = 8
CONNECT_TIMEOUT_SECONDS = 3


def can_connect(address: str) -> bool:
    """Return whether a connection succeeds once the network policies apply."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        last = time.monotonic() > deadline
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
            connected = True
        except OSError:
            connected = False
        if last:
            return connected
        time.sleep(0.5)


with ThreadPoolExecutor() as pool:
    for address, connected in zip(sys.argv[1:], pool.map(can_connect, sys.argv[1:]), strict=True):
        print(address, "reached" if connected else "dropped")
