"""The web page in a real browser: predicting, explaining, training; keyboard, themes, phone, and a checker of accessibility."""

from __future__ import annotations

import importlib.resources
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from deploy.server.client import Client, Start
from dicom_files import ct, ramp, write
from report.html.chromium import Page

pytestmark = pytest.mark.browser

AXE = "axe.run(document, {iframes: false}).then(r => r.violations.map(v => v.id + ': ' + v.nodes[0].html))"
FOCUS = "document.activeElement.id"


@pytest.fixture(scope="module")
def own(start: Start) -> Client:
    return start()


@pytest.fixture
def page(own: Client, tmp_path: Path) -> Iterator[Page]:
    with Page(tmp_path / "profile") as page:
        page.resize(1280)
        page.open(own.url + "/")
        page.wait_for("document.getElementById('about').textContent")
        yield page


def accessible(page: Page) -> list[str]:
    """What axe-core complains about."""
    page.value((importlib.resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    return list(page.value(AXE))


def quiet(page: Page, own: Client) -> None:
    """No word in the console, no request to another address."""
    assert page.complaints == []
    outside = [a for a in page.requests if not a.startswith((own.url + "/", "blob:" + own.url, "data:"))]
    assert outside == []


def test_predicting(page: Page, own: Client, scans: list[Path], tmp_path: Path) -> None:
    film = write(tmp_path / "film.dcm", ct(np.stack([ramp(), ramp().T])))
    bad = tmp_path / "<b>bad.png"
    bad.write_bytes(scans[0].read_bytes()[:300])
    page.choose("#files", scans[0], film, bad)
    page.wait_for("document.getElementById('state').textContent.includes('predicted')")
    assert page.value("document.getElementById('state').textContent") == "3 images predicted, 1 cannot be used."
    assert page.value("[...document.querySelectorAll('#results h3')].map(h => h.textContent)") == [
        scans[0].name,
        "film.dcm#0",
        "film.dcm#1",
        bad.name,
    ]
    (row,) = own.send("/predict", scans[0]).json["predictions"]
    shown = page.value("document.querySelector('#results .headline').textContent")
    assert shown == f"{row['prediction']}: {100 * row['probabilities'][row['prediction']]:.1f} %"
    assert page.value("document.querySelectorAll('#results tbody')[0].rows.length") == 3
    inside = page.value(
        "[...document.querySelectorAll('#results tbody')[0].rows].filter(r => r.cells[3].textContent).length"
    )
    assert inside == len(row["set"])
    assert "truncated" in page.value("document.querySelector('#results .error').textContent")
    page.value("document.querySelector('.actions button').click()")
    page.wait_for("document.querySelector('.reasons img')?.naturalWidth")
    assert page.value("document.querySelector('.reasons li').textContent").count("cosine") == 1
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        assert accessible(page) == []
    page.resize(390)
    assert page.value("document.documentElement.scrollWidth") == 390
    quiet(page, own)


def test_the_keyboard_reaches_everything(page: Page, own: Client) -> None:
    reached = []
    for _ in range(8):
        page.press("Tab")
        reached.append(page.value(FOCUS))
    assert reached[1:6] == ["tab-predict", "model", "window", "frame", "files"]
    page.value("document.getElementById('tab-predict').focus()")
    page.press("ArrowRight")
    assert page.value(FOCUS) == "tab-train"
    assert page.value("document.getElementById('predict').hidden && !document.getElementById('train').hidden")
    page.press("ArrowLeft")
    assert page.value("!document.getElementById('predict').hidden")
    quiet(page, own)


def test_training(page: Page, own: Client, discs: Path) -> None:
    page.value("document.getElementById('tab-train').click()")
    page.wait_for("document.getElementById('method').options.length")
    page.choose("#folder", discs / "test")
    page.wait_for("!document.getElementById('classes').hidden")
    assert page.value("[...document.querySelectorAll('#classes tbody th')].map(cell => cell.textContent)") == [
        "blue_cyst",
        "green_tumor",
        "red_stone",
    ]
    assert accessible(page) == []
    page.value(
        "document.getElementById('method').value = 'tip-adapter'; document.getElementById('name').value = 'mine'"
    )
    page.value("document.getElementById('start').click()")
    page.wait_for("!document.getElementById('outcome').hidden")
    assert "tip-adapter" in page.value("document.querySelector('#verdict li').textContent")
    assert page.value("document.getElementById('model').value") == "mine"
    assert accessible(page) == []
    page.resize(390)
    assert page.value("document.documentElement.scrollWidth") == 390
    quiet(page, own)


def test_an_explanation_is_of_the_image_that_was_predicted(page: Page, own: Client, tmp_path: Path) -> None:
    page.value("document.getElementById('window').value = 'lung'; document.getElementById('frame').value = 'middle'")
    page.choose("#files", write(tmp_path / "film.dcm", ct(np.stack([ramp(), ramp().T]))))
    page.wait_for("document.querySelector('#results .headline')")
    page.value("document.getElementById('window').value = 'brain'; document.getElementById('frame').value = '0'")
    page.value("document.querySelector('.actions button').click()")
    page.wait_for("document.querySelector('.reasons img')?.naturalWidth")
    (asked,) = [address for address in page.requests if "/explain" in address]
    assert parse_qs(urlsplit(asked).query) | {"class": []} == {
        "model": ["discs"],
        "window": ["lung"],
        "frame": ["1"],
        "class": [],
    }
    quiet(page, own)


CLASSES = "[...document.getElementById('classes').tBodies[0].rows].map(r => r.cells[0].textContent + ' ' + r.cells[1].textContent)"


def test_training_on_folders_of_patients(page: Page, own: Client, discs: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("blue_cyst", "red_stone"):
            for number, scan in enumerate(sorted((discs / split / name).iterdir())[:8]):
                place = tmp_path / "scans" / split / name.split("_")[1] / f"PAT{number % 2}" / scan.name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(scan, place)
    page.value("document.getElementById('tab-train').click()")
    page.wait_for("document.getElementById('method').options.length")
    page.choose("#folder", tmp_path / "scans")
    page.wait_for("!document.getElementById('classes').hidden")
    assert page.value(CLASSES) == ["test/cyst 8", "test/stone 8", "train/cyst 8", "train/stone 8"]
    while page.value("document.querySelectorAll('#classes tbody tr').length"):
        page.value("document.querySelector('#classes button').click()")
    for part, most in (
        ("train", 8),
        ("test", 16),
    ):  # one after the other: a browser lists a chosen folder in its own time
        page.choose("#folder", tmp_path / "scans" / part)
        page.wait_for(f"{CLASSES}.join() === 'cyst {most},stone {most}'")
    page.value("document.getElementById('class-name').value = 'new/bone'")
    page.choose("#class-files", *sorted((discs / "train" / "green_tumor").iterdir())[:8])
    assert page.value(CLASSES) == ["cyst 16", "new-bone 8", "stone 16"]
    page.value("document.getElementById('method').value = 'zero-shot'; document.getElementById('name').value = 'deep'")
    page.value("document.getElementById('start').click()")
    page.wait_for("!document.getElementById('outcome').hidden")
    (trained,) = [model for model in own.get("/models").json["models"] if model["name"] == "deep"]
    assert trained["classes"] == ["cyst", "new-bone", "stone"]
    quiet(page, own)


def test_a_token_is_asked_for_once(start: Start, tmp_path: Path, scans: list[Path]) -> None:
    own = start(token="a-token-of-the-tests-0123", hosts=None, reason="this server does not train")
    with Page(tmp_path / "profile") as page:
        page.open(own.url + "/")
        page.wait_for("!document.getElementById('access').hidden")
        assert page.value(FOCUS) == "token"
        page.value("document.getElementById('token').value = 'a-token-of-the-tests-0123'")
        page.press("Enter")
        page.wait_for("document.getElementById('about').textContent")
        page.choose("#files", scans[0])
        page.wait_for("document.querySelector('#results .headline')")
        page.value("document.getElementById('tab-train').click()")
        page.wait_for("!document.getElementById('off').hidden")
        assert "does not train" in page.value("document.getElementById('off').textContent")
    with Page(tmp_path / "other profile") as page:
        page.open(own.url + "/docs")
        page.wait_for("!document.getElementById('access').hidden")
        assert page.value("document.querySelectorAll('section').length") == 0
        page.value("document.getElementById('token').value = 'a-token-of-the-tests-0123'")
        page.press("Enter")
        page.wait_for("document.querySelectorAll('section').length > 5")


def test_the_list_of_addresses(page: Page, own: Client) -> None:
    page.open(own.url + "/docs")
    page.wait_for("document.querySelectorAll('section').length > 5")
    assert "POST /predict" in page.value("document.getElementById('addresses').textContent")
    assert accessible(page) == []
    quiet(page, own)
