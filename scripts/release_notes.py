"""Print the section of the changelog for a tag, such as v1.2.3; fail if version, tag and changelog disagree."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def main() -> None:
    tag = sys.argv[1]
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    if tag != f"v{version}":
        sys.exit(f"The tag is {tag}, but pyproject.toml has the version {version}. Correct one of them.")
    sections = re.split(r"^## ", (CHECKOUT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    found = [section.partition("\n")[2].strip() for section in sections if section.split()[0].strip("[]") == version]
    if not found:
        sys.exit(f"CHANGELOG.md has no section {version}. Name it so instead of Unreleased.")
    print(found[0])


if __name__ == "__main__":
    main()
