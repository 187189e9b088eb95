"""Builds and pushes the images, or prints their names."""

import sys

from devtools.container_images import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
