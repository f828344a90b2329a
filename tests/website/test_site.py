"""The built site: what a strict build refuses, and the pages in a browser, from a disk and without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from report.html.chromium import Page

pytestmark = pytest.mark.site

ROOT = Path(__file__).parents[2]
PAGES = ["index", "images", "compare", "concepts/biomedcoop", "reference/commands", "reference/python", "results/auto"]
RAW = r":(func|class|data|meth|mod|attr|exc):|\]\([\w./-]+\.md|\]\[biomedcoop|^::: "
"""Markup that a page would show if it were not understood."""


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    paths = os.pathsep.join([str(source / "src"), str(source), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "site"
    result = build(ROOT, out)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def page(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


class Targets(HTMLParser):
    """Everything that a page loads, and its links within the site."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.names |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("img", "script", "source", "iframe") and values.get("src"):
            self.loads.append(values["src"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(values["href"])


def test_a_strict_build_refuses_what_leads_nowhere(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("docs", "website"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("tables", "__pycache__"))
    (source / "src").symlink_to(ROOT / "src")
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md"):
        shutil.copy(ROOT / name, source)
    nav = (
        (ROOT / "mkdocs.yml")
        .read_text()
        .replace("  - Compare: compare.md", "  - Compare: compare.md\n  - Nothing: nothing.md")
    )
    (source / "mkdocs.yml").write_text(nav)
    with (source / "docs/dicom.md").open("a") as file:
        file.write("\n[a](nowhere.md) [b](trust.md#no-such-heading) ![c](images/none.png)\n")
    (source / "docs/results/unlisted.md").write_text("# A page that no overview names\n")
    result = build(source, tmp_path / "out")
    assert result.returncode != 0
    for fault in ("nothing.md", "nowhere.md", "no-such-heading", "images/none.png", "results/unlisted.md"):
        assert fault in result.stderr


def test_every_link_and_every_picture_of_every_page_is_there(site: Path) -> None:
    pages = {
        file: Targets(file.read_text(encoding="utf-8")) for file in site.rglob("*.html") if file.name != "404.html"
    }
    lost = []
    for file, targets in pages.items():
        for target in targets.links + targets.loads:
            if re.match(r"(https?|mailto|data):", target):
                assert target not in targets.loads, f"{file}: loads {target}"
                continue
            path, _, anchor = target.partition("#")
            goal = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
            goal = goal / "index.html" if goal.is_dir() else goal
            found = goal.exists() and (not anchor or goal not in pages or unquote(anchor) in pages[goal].names)
            lost += [] if found else [f"{file.relative_to(site)}: {target}"]
    assert lost == []
    assert len(pages) > 60


def test_no_page_shows_raw_markup(site: Path) -> None:
    for file in site.rglob("*.html"):
        text = re.sub(r"<(pre|code|script|style)\b.*?</\1>", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(RAW, text, re.MULTILINE), file


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_asks_nobody(page: Page, site: Path, name: str) -> None:
    page.complaints.clear()
    page.requests.clear()
    for width in (1280, 390):
        page.resize(width)
        page.open(site / f"{name}.html")
        page.wait_for("document.readyState == 'complete'")
        assert page.value("document.documentElement.scrollWidth") <= width
    assert page.complaints == []
    assert all(request.startswith(("file:", "data:", "about:")) for request in page.requests), page.requests
    assert page.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_the_theme_follows_the_system(page: Page, site: Path) -> None:
    page.open(site / "trust.html")
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    for preferred, shown in (("dark", "slate"), ("light", "default")):
        page.prefer(preferred)
        page.wait_for(f"{scheme} == '{shown}'")


def test_the_search_works_from_a_disk(page: Page, site: Path) -> None:
    page.resize(1280)
    page.open(site / "images.html")
    page.value(
        "(box => { box.focus(); box.value = 'abstain'; box.dispatchEvent(new Event('input', {bubbles: true}));"
        " box.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true})); })(document.querySelector('.md-search__input'))"
    )
    page.wait_for("document.querySelectorAll('.md-search-result__item').length")
    assert "When to trust an answer" in page.value(
        "[...document.querySelectorAll('.md-search-result__item h1')].map(title => title.textContent)"
    )
