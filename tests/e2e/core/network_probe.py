"""Run in a pod as another would be: tells, for each address given as host:port, whether it can be reached.

A network may take seconds to learn of a new pod, and lets it speak, or be spoken to, as if no policy were there till then: it
is asked again and again, and the last answer counts.
"""

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SETTLED_SECONDS = 8
CONNECT_SECONDS = 3


def reached(address: str) -> bool:
    """Whether a connection can be opened once the network has settled."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + SETTLED_SECONDS
    while True:
        last = time.monotonic() > until
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            answer = True
        except OSError:
            answer = False
        if last:
            return answer
        time.sleep(0.5)


with ThreadPoolExecutor() as pool:
    for address, answer in zip(sys.argv[1:], pool.map(reached, sys.argv[1:]), strict=True):
        print(address, "reached" if answer else "dropped")
