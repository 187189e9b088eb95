"""Build the container images.

    python scripts/build_images.py             # build all; print each name and size
    python scripts/build_images.py trainer     # build one
    python scripts/build_images.py names       # print the names, as environment variables
    python scripts/build_images.py push        # build and push all; print the names by digest, as environment variables

See docs/settings.md for IMAGE_PREFIX, TAG and the variables that replace a whole name.
"""

from __future__ import annotations

import sys

from devtools.commands import ToolError, print_error, require_programs
from devtools.container_images import ALL_IMAGES, IMAGES, build_image, name_of, push_image, read_size, variable_of


def main(arguments: list[str]) -> int:
    """Build the images that the arguments name, or print the names; return the exit code."""
    try:
        require_programs("docker", "git")
        if arguments == ["names"]:
            print("\n".join(f"{variable_of(image)}={name_of(image)}" for image in IMAGES))
            return 0
        if arguments == ["push"]:
            print("\n".join(f"{variable_of(image)}={push_image(build_image(image))}" for image in IMAGES))
            return 0
        if unknown := set(arguments) - set(ALL_IMAGES):
            raise ToolError(f"unknown image {', '.join(sorted(unknown))}; must be one of {', '.join(ALL_IMAGES)}")
        for image in arguments or ALL_IMAGES:
            name = build_image(image)
            print(f"  {name}: {read_size(name) / 1e6:.0f} MB")
    except ToolError as error:
        return print_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
