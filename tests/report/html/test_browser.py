"""The page in a real browser: no complaint, no request, and everything within reach of keyboard, phone and printer."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.html.chromium import Page

pytestmark = pytest.mark.browser

PAPER = "getComputedStyle(document.body).backgroundColor"
FOCUS = "document.activeElement.id || document.activeElement.className || document.activeElement.textContent"


@pytest.fixture
def page(run: Path, tmp_path: Path):
    with Page(tmp_path / "profile") as page:
        page.resize(1280)
        page.open(run / "report.html")
        yield page


def test_it_loads_in_silence_and_asks_nobody(page: Page, run: Path) -> None:
    assert page.complaints == []
    assert {address for address in page.requests if not address.startswith("data:")} == {(run / "report.html").as_uri()}
    assert page.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_an_address_of_the_network_is_blocked(page: Page) -> None:
    page.value("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    page.value("1")
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


def test_the_theme_follows_the_system_and_the_button(page: Page) -> None:
    page.prefer("light")
    light = page.value(PAPER)
    page.prefer("dark")
    dark = page.value(PAPER)
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    page.value("document.getElementById('theme').click()")
    assert page.value(PAPER) == light
    assert page.value("document.getElementById('theme').getAttribute('aria-pressed')") == "false"


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.prefer("light")
    page.press("Tab")
    assert page.value(FOCUS) == "skip"
    page.press("Tab")
    assert page.value(FOCUS) == "theme"
    before = page.value(PAPER)
    page.press("Enter")
    assert page.value(PAPER) != before
    page.press("Tab")
    assert page.value(FOCUS) == "Verdict"
    seen = set()
    for _ in range(60):
        page.press("Tab")
        seen.add(page.value("document.activeElement.tagName"))
    assert {"A", "DIV", "PRE", "SUMMARY"} <= seen
    closed = "document.querySelector('details:not([open]) summary')"
    page.value(f"window.first = {closed}; window.first.focus()")
    page.press("Enter")
    assert page.value("window.first.parentElement.open")


def test_letters_of_figures_have_the_colour_of_the_theme(page: Page) -> None:
    for theme, colour in (("light", "rgb(0, 0, 0)"), ("dark", "rgb(255, 255, 255)")):
        page.prefer(theme)
        assert page.value("getComputedStyle(document.querySelector('svg text')).fill") == colour


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    page.resize(width)
    assert page.value("document.documentElement.scrollWidth") <= width


def test_a_wide_table_shows_that_it_goes_on_and_its_caption_wraps(page: Page) -> None:
    page.resize(390)
    wide = "[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth + 1)"
    assert page.value(f"{wide}.length") > 0
    assert page.value(f"{wide}.every(one => getComputedStyle(one).backgroundAttachment.includes('scroll'))")
    ends = "one.querySelector('caption > span').getBoundingClientRect().right"
    assert page.value(f"{wide}.every(one => {ends} <= 390)")
    page.value(f"{wide}.forEach(one => one.scrollLeft = 60)")
    assert page.value(f"{wide}.every(one => one.querySelector('caption > span').getBoundingClientRect().left >= 0)")


def test_it_prints_in_light_colours(page: Page) -> None:
    page.prefer("dark")
    assert page.pdf().startswith(b"%PDF")
    page("Emulation.setEmulatedMedia", media="print")
    assert page.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.value("getComputedStyle(document.documentElement).getPropertyValue('--ink')").strip() == "#000"
