"""The pages that are shown to people, and the fenced blocks in them, for the tests that run these.

Knows Markdown's fences, and nothing of what stands in them.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
FENCE = re.compile(r"^(`{3,})(.*)\n(?P<text>(?:.*\n)*?)\1$", re.MULTILINE)


class Block(NamedTuple):
    page: str  # relative to the checkout
    kind: str  # what is written behind the fence
    text: str
    id: str  # for a test

    @property
    def commands(self) -> list[str]:
        """Those of a shell."""
        return [part.strip() for part in re.split(r"&&|;|\n", self.text) if part.strip()]


def blocks_of(page: Path) -> list[Block]:
    name = str(page.relative_to(ROOT))
    return [
        Block(name, fence[2], fence["text"], f"{name}-{number}")
        for number, fence in enumerate(FENCE.finditer(page.read_text()), 1)
    ]


def blocks(*kinds: str) -> list[Block]:
    """Those of some kinds, in all pages; of every kind, if none is said."""
    every = [block for page in PAGES for block in blocks_of(page)]
    return [block for block in every if block.kind in kinds or not kinds]
