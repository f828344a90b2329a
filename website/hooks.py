"""Events of MkDocs: pages that come from the code and from files beside the folder ``docs``, and the links between all pages.

``make docs`` builds the site. A page of the reference is made from what it describes, so it cannot age.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from website.reference import commands_page, python_page

ROOT = Path(__file__).parent.parent

BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
}
"""Files of the repository's root that are pages of the site."""

LINK = re.compile(r"(?P<image>!?)\[(?P<words>[^\]]*)\]\((?P<target>(?!\w+:|#)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Put every page of results, in the order of their overview, into the navigation, and new guides at the end of theirs."""
    chapters = {title: pages for chapter in config.nav for title, pages in chapter.items()}
    overview = (ROOT / "docs/results/README.md").read_text(encoding="utf-8")
    results = list(dict.fromkeys(re.findall(r"^\| \[[^\]]*\]\(([\w./-]+\.md)\)", overview, re.MULTILINE)))
    chapters["Results"][:] = [
        "results/README.md",
        *(f"results/{page}" for page in results if "/" not in page),
        {"The present mini": [f"results/{page}" for page in results if "/" in page]},
    ]
    named = str(config.nav)
    there = (page.name for page in sorted((ROOT / "docs").glob("*.md")))
    chapters["Guides"] += [page for page in there if f"'{page}'" not in named]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that have no file in ``docs``."""
    made = {
        **{page: (ROOT / file).read_text(encoding="utf-8") for file, page in BESIDE.items()},
        "reference/python.md": python_page(),
        "reference/commands.md": commands_page(),
    }
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(text: str, page: Any, **_: Any) -> str:
    """Point links at pages of the site."""
    parts = FENCED.split(text)
    return "".join(part if part.startswith("```") else linked(part, page.file.src_uri) for part in parts)


def linked(text: str, page: str) -> str:
    """The text of a page whose links lead to pages of the site.

    Args:
        text: Markdown with links as they work in the repository.
        page: the page's path within the site.

    Returns:
        The same text. A link to a file of the repository that is no page becomes plain words. A link to nothing stays: MkDocs
        complains of it.
    """
    here = "" if page in BESIDE.values() else posixpath.join("docs", posixpath.dirname(page))

    def pointed(found: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(here, found["target"]))
        if place in BESIDE:
            goal = BESIDE[place]
        elif place.startswith("docs/"):
            goal = place.removeprefix("docs/")
        else:
            return found["words"] if (ROOT / place).exists() else found[0]
        goal = posixpath.relpath(goal, posixpath.dirname(page) or ".")
        return f"{found['image']}[{found['words']}]({goal}{found['anchor'] or ''})"

    return LINK.sub(pointed, text)
