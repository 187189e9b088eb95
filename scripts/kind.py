"""A cluster on this machine with all of it: up, down and status."""

import sys

from devtools.kind_cluster import main

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
