"""A protocol file is checked whole before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from biomedcoop.benchmark.protocol import Protocol, shipped
from biomedcoop.errors import UserError

GOOD = {"format": 1, "kind": "few-shot", "datasets": ["busi", "btmri"], "methods": ["zero-shot", "coop"]}
VARIANT = {"name": "short", "method": "coop", "settings": {"epochs": 3}}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_protocol_can_be_read(name: str) -> None:
    protocol = Protocol.read(name)
    assert protocol.rows
    assert protocol.title != protocol.kind
    assert Protocol.of({k: v for k, v in protocol.to_dict().items() if v not in ({}, [], None)}) == protocol


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sedes": [1]}, "no key 'sedes'; did you mean seeds?"),
        ({"format": 2}, "format=2 must be 1"),
        ({"kind": "many-shot"}, "kind='many-shot' must be one of few-shot"),
        ({"datasets": ["busi", "busi"]}, "datasets: 'busi' is there twice"),
        ({"datasets": "busi"}, "datasets='busi' must be a list"),
        ({"datasets": [3]}, "datasets=3 must be a name in quotes"),
        ({"methods": ["cop"]}, "no method 'cop'; did you mean"),
        ({"methods": []}, "methods is an empty list; give at least one, e.g. methods = ["),
        ({"seeds": [1, 2, 1]}, "seeds: 1 is there twice; give each once"),
        ({"seeds": [-1]}, "seeds=-1 must be a whole number"),
        ({"shots": [0]}, "shots=0 must be a whole number of at least 1"),
        ({"recipe": "fats"}, "no recipe 'fats'; did you mean fast?"),
        ({"recipes": {"coop": "fats"}}, "no recipe 'fats'"),
        ({"recipes": {"kgcoop": "fast"}}, "[recipes] names 'kgcoop', which is not compared"),
        ({"unused_sentences": 1}, "unused_sentences=1 must be True or False"),
        ({"reference": "kgcoop"}, "reference 'kgcoop' is none of the methods and variants"),
        ({"groups": {"seen": ["busi"]}}, "[groups] leaves out 'btmri'"),
        ({"groups": {"seen": ["retina"]}}, "[groups] names 'retina', which is not in datasets"),
        ({"groups": {"a": ["busi"], "b": ["busi", "btmri"]}}, "[groups]: 'busi' is there twice"),
        ({"tests": {"busi": ["udiat"]}}, '[tests] belongs to kind = "cross-dataset"'),
        ({"kind": "cross-dataset"}, "[tests] does not say what a classifier of busi is tested on"),
        ({"kind": "cross-dataset", "datasets": ["busi"], "tests": {"busi": ["busi"]}}, "its own test images"),
        ({"variants": [{**VARIANT, "setting": 1}]}, "[[variants]] no key 'setting'; did you mean settings?"),
        ({"variants": [{"name": "short", "method": "coop"}]}, "[[variants]] without settings"),
        ({"variants": [{**VARIANT, "settings": {"epoch": 3}}]}, "variant 'short': method coop has no setting 'epoch'"),
        ({"variants": [{**VARIANT, "settings": {"epochs": 0}}]}, "variant 'short': method coop: epochs=0 must be"),
        ({"variants": [{**VARIANT, "name": "coop"}]}, "rows: 'coop' is there twice"),
        ({"variants": [{**VARIANT, "name": "a/b"}]}, "holds a '/'"),
        ({"backbones": ["minni"]}, "no backbone 'minni'"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        Protocol.of({**GOOD, **change}, "my.toml")
    assert str(error.value).startswith("my.toml: ")
    assert line in str(error.value)


@pytest.mark.parametrize(("key", "line"), [("format", "format = 1"), ("kind", 'kind = "few-shot"')])
def test_a_needed_key_that_is_left_out_is_named(key: str, line: str) -> None:
    with pytest.raises(UserError, match=f"^my.toml: there is no {key}; add the line {line}$"):
        Protocol.of({k: v for k, v in GOOD.items() if k != key}, "my.toml")


def test_what_is_left_out_has_defaults() -> None:
    protocol = Protocol.of(GOOD)
    assert (protocol.backbones, protocol.shots, protocol.seeds) == (("mini",), (1, 2, 4, 8, 16), (1, 2, 3))
    assert Protocol.of({**GOOD, "kind": "base-to-novel"}).shots == (16,)


def test_the_digest_leaves_out_what_only_the_report_reads() -> None:
    digest = Protocol.of(GOOD).digest
    shown = {"title": "Mine", "reference": "coop", "groups": {"seen": ["busi", "btmri"]}}
    assert Protocol.of({**GOOD, **shown, "seeds": [1, 2, 3]}).digest == digest
    assert Protocol.of({**GOOD, "seeds": [1, 3, 2]}).digest != digest


def test_a_file_is_read_and_its_values_can_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'format = 1\nkind = "few-shot"\ndatasets = ["busi", "btmri"]\nmethods = ["coop", "kgcoop"]\nreference = "coop"\n'
        '[recipes]\ncoop = "fast"\n[groups]\nunseen = ["busi"]\nseen = ["btmri"]\n'
        '[[variants]]\nname = "short"\nmethod = "coop"\nsettings = { epochs = 3 }\n'
    )
    assert [row.name for row in Protocol.read(file).rows] == ["coop", "kgcoop", "short"]
    less = Protocol.read(file, {"datasets": ["busi"], "methods": ["kgcoop"], "shots": [2]})
    assert (less.groups, less.recipes, less.reference) == ({"unseen": ("busi",)}, {}, None)
    assert ([row.name for row in less.rows], less.shots) == (["kgcoop"], (2,))
    with pytest.raises(UserError, match=r"^seeds: 1 is there twice"):
        Protocol.read(file, {"seeds": [1, 1]})
    file.write_text("format = ")
    with pytest.raises(UserError, match=r"mine\.toml is not TOML"):
        Protocol.read(file)
    with pytest.raises(UserError, match="cannot be read"):
        Protocol.read(tmp_path / "other.toml")
    with pytest.raises(UserError, match="did you mean quick"):
        Protocol.read("quik")
