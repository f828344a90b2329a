"""``biomedcoop datasets list``, ``info``, ``download`` and ``prepare`` as a user types them; the network is off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the external site udiat: four images and a split file."""
    monkeypatch.setenv("BIOMEDCOOP_DATA", str(tmp_path))
    folder = tmp_path / "UDIAT"
    lists: dict[str, list[list[object]]] = {"train": [], "test": []}
    for label, name in enumerate(("benign tumor", "malignant tumor")):
        for split in lists:
            path = folder / "UDIAT" / name.replace(" ", "_") / f"{split}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"an image")
            lists[split].append([f"{path.parent.name}/{path.name}", label, name])
    (folder / "split_UDIAT.json").write_text(json.dumps(lists))
    return tmp_path


def test_list(cli: Cli, root: Path) -> None:
    lines = cli("datasets", "list").out.splitlines()
    rows = {line.split()[0]: line.split()[-1] for line in lines if line.strip()}
    assert (rows["udiat"], rows["busi"]) == ("UDIAT", "-")
    assert "not checked" in cli("datasets", "list").err
    listed = json.loads(cli("datasets", "list", "--json").out)
    assert len(listed) == 17
    places = {entry["name"]: entry["place"] for entry in listed}
    assert places["udiat"] == str(root / "UDIAT")
    assert [entry["name"] for entry in listed if entry["tests"] == "busi"] == ["buid", "busbra", "udiat"]


def test_info(cli: Cli, refused: Refused, root: Path) -> None:
    card = cli("datasets", "info", "RETINA").out
    for words in ("366 of 812 test images", "licence: not stated", "cataract (519 / 207 / 312)", "download retina"):
        assert words in " ".join(card.split())
    here = " ".join(cli("datasets", "info", "udiat").out.split())
    assert f"(not checked; 'biomedcoop datasets prepare {root / 'UDIAT'}' checks it)" in here
    told = json.loads(cli("datasets", "info", "udiat", "--json").out)
    assert (told["kind"], told["tests"], told["place"]) == ("external", "busi", str(root / "UDIAT"))
    assert "did you mean retina" in refused("datasets", "info", "retna")
    assert "pathmnist_64 is a file of MedMNIST" in refused("datasets", "info", "pathmnist_64")


def test_download_offline(cli: Cli, refused: Refused, root: Path) -> None:
    result = cli("datasets", "download", "udiat", "--offline")
    assert result.out == f"udiat: all 4 images are in {root / 'UDIAT'} (already there)\n"
    assert "the label order is that of the file: benign tumor, malignant tumor" in result.err
    assert "put BUSI.zip and split_BUSI.json there" in refused("datasets", "download", "busi", "--offline")
    several = cli("datasets", "download", "busi", "udiat", "--offline", "--json", "--quiet")
    assert (several.status, [check["name"] for check in json.loads(several.out)]) == (2, ["udiat"])
    assert several.err.startswith("error: busi is not in ")
    assert several.err.count("\n") == 1
    to = cli("datasets", "download", "udiat", "--offline", "--to", root / "more")
    assert to.err.startswith("error: udiat is not in ")


def test_prepare(cli: Cli, refused: Refused, root: Path) -> None:
    assert cli("datasets", "prepare", root / "UDIAT").status == 0
    (root / "UDIAT" / "UDIAT" / "benign_tumor" / "test.png").unlink()
    result = cli("datasets", "prepare", root / "UDIAT", "--quiet")
    assert result == (
        1,
        f"udiat: 1 of 4 images is missing in {root / 'UDIAT'}\nmissing: benign_tumor/test.png\n",
        "",
    )
    (check,) = json.loads(cli("datasets", "prepare", root / "UDIAT", "--json").out)
    assert (check["complete"], check["missing"]) == (False, ["benign_tumor/test.png"])
    assert "its name is not that of a dataset" in refused("datasets", "prepare", root)
    assert cli("datasets", "prepare", root, root / "UDIAT").status == 2
