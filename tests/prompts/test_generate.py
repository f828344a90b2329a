"""Sentences from a language model: a server on this machine that speaks the chat-completions protocol, well or badly.

What it answers depends on the request alone, so a run that met trouble must end like one that met none.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from biomedcoop.errors import UserError
from biomedcoop.prompts import check_sentences, sentences_for
from biomedcoop.prompts.generation.cost import estimate
from biomedcoop.prompts.generation.endpoint import DEFAULT_URL, Endpoint
from biomedcoop.prompts.generation.generate import generate
from biomedcoop.prompts.generation.request import Wanted, messages, request_body

Cli = Callable[..., Any]
Refused = Callable[..., str]

KEY = "sk-1234567890-secret"
CLASSES = ["kidney cyst", "kidney stone", "normal kidney"]
WANTED = Wanted(CLASSES, "CT", "kidney", 12)
"""Eight sentences come at a time: two requests per class."""

VOCABULARY = re.findall(
    r"\w+",
    """
smooth ragged dark bright round oval thin thick wall rim centre edge shadow streak band spot cluster patch fold layer
dense pale grey sharp blurred even mottled coarse fine speckled central upper lower lateral outer inner single paired scattered
shell ring halo plaque ridge groove contour margin surface depth lobe pole hilum cortex medulla fascia fat vessel branch wedge
nodule focus zone""",
)


def write(seed: str, count: int = 8) -> list[str]:
    """Sentences of ten words that have little in common."""
    draw = random.Random(seed)
    return [" ".join(draw.sample(VOCABULARY, 10)).capitalize() + "." for _ in range(count)]


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    time: float

    @property
    def text(self) -> str:
        return str(self.body["messages"][-1]["content"])

    @property
    def class_name(self) -> str:
        return self.text.split("Class to describe: ")[1].split("\n")[0]


class Model(ThreadingHTTPServer):
    """One model. ``trouble`` is what goes wrong with the next requests, one word each (None: nothing); then ``always``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.trouble: list[str | None] = []
        self.always: str | None = None
        self.asked: list[Asked] = []
        self.answered: list[str] = []  # texts of the requests that got sentences
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


STATUS: dict[str, tuple[int, Any]] = {
    "429": (429, {"message": "slow down"}),
    "500": (500, {"message": "out of order"}),
    "503": (503, None),
    "400": (400, {"message": "temperature is out of range"}),
    "400 format": (400, {"message": "'response_format' of type 'json_schema' is not supported with this model"}),
    "422 format": (422, [{"loc": ["body", "response_format"], "msg": "extra fields not permitted"}]),
    "401": (401, {"message": f"no such key:\n{KEY}"}),
    "403": (403, {"message": "not for your region"}),
    "404": (404, {"message": "no model 'scribe'"}),
    "quota": (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    "307": (307, {"message": "over there"}),
    "402": (402, {"message": "no credit left"}),
}


def other_class(request: Asked) -> str:
    return next(name for name in CLASSES if name != request.class_name)


CONTENT: dict[str, Callable[[Asked], Any]] = {
    "words": lambda r: "Here you are: a cyst is round.",
    "empty": lambda r: '{"sentences": []}',
    "not sentences": lambda r: '{"sentences": {"a": "b"}}',
    "numbers": lambda r: '{"sentences": [1, null, "  "]}',
    "nested": lambda r: '{"sentences": ' + "[" * 100_000,
    "half a sign": lambda r: '{"sentences": ["half \\ud800 a sign"]}',
    "null": lambda r: None,
    "parts": lambda r: [{"type": "text", "text": "cyst"}],
    "block": lambda r: "Sure!\n```json\n" + json.dumps({"sentences": write(r.text)}, indent=1) + "\n```\n",
    "thoughts": lambda r: '<think>Maybe {"sentences": 8}?</think>' + json.dumps({"sentences": write(r.text)}),
    "spaces": lambda r: json.dumps({"sentences": [" \n" + s.replace(" ", "\n ") for s in write(r.text)]}),
    "few": lambda r: json.dumps({"sentences": write(r.text, 2)}),
    "one": lambda r: json.dumps({"sentences": write(r.text, 1)}),
    "same": lambda r: json.dumps({"sentences": write(r.class_name)}),
    "repeat": lambda r: json.dumps({"sentences": write(r.text, 1) * 8}),
    "shared": lambda r: json.dumps({"sentences": write("whatever the class")}),
    "near-repeat": lambda r: json.dumps(
        {"sentences": [s.replace(".", f" {n}.") for n in range(8) for s in write(r.text, 1)]}
    ),
    "length": lambda r: json.dumps({"sentences": ["Too short.", "Round. " * 31]}),
    "other class": lambda r: json.dumps({"sentences": [f"Unlike {other_class(r)}s: {s}" for s in write(r.text)]}),
    "opening": lambda r: json.dumps({"sentences": [f"On a CT slice {s}" for s in write(r.text)]}),
}


class Answer(BaseHTTPRequestHandler):
    server: Model
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for the client's nod

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body, time.monotonic())
        trouble = self.server.trouble.pop(0) if self.server.trouble else self.server.always
        self.server.asked.append(request)
        if trouble == "silence":
            self.server.closing.wait()
        if trouble == "hang up" or trouble == "silence":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif trouble == "no http":
            self.close_connection = True
            self.wfile.write(b"good morning\r\n\r\n")
        elif trouble == "html":
            self.reply(200, b"<html>Please log in.</html>", "text/html")
        elif trouble == "list":
            self.reply(200, b"[]")
        elif trouble == "no format" and "response_format" in body:
            self.fail("400 format")
        elif trouble in STATUS:
            self.fail(trouble)
        else:
            self.complete(request, trouble)

    def fail(self, kind: str) -> None:
        status, error = STATUS[kind]
        key = "detail" if isinstance(error, list) else "error"
        self.reply(status, json.dumps({key: error}).encode() if error else b"<html>oops</html>")

    def complete(self, request: Asked, trouble: str | None) -> None:
        make = CONTENT.get(trouble or "", lambda r: json.dumps({"sentences": write(r.text)}))
        message: dict[str, Any] = {"role": "assistant", "content": make(request)}
        if trouble == "cut":
            message["content"] = message["content"][:100]
        if trouble == "refusal":
            message = {"role": "assistant", "content": None, "refusal": "I would rather not"}
        usage = {"prompt_tokens": 200, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 0}}
        reply = {
            "object": "chat.completion",
            "model": "scribe-2026-01",
            "choices": [{"index": 0, "message": message, "finish_reason": "length" if trouble == "cut" else "stop"}],
            "usage": None if trouble == "uncounted" else usage,
        }
        self.server.answered.append(request.text)
        self.reply(200, json.dumps(reply).encode(), short=trouble == "broken off")

    def reply(self, status: int, content: bytes, kind: str = "application/json", short: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("retry-after-ms", "10")
        if status == 307:
            self.send_header("Location", f"{self.server.address}/elsewhere")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if short else content)
        self.close_connection = short or self.close_connection

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a key, for this process and those it starts; nothing of the user's own settings."""
    for name in os.environ:
        if name.startswith("OPENAI_") or "proxy" in name.lower():
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prompts"


@pytest.fixture
def free_address() -> str:
    """Where no one listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def endpoint(server: Model, **more: Any) -> Endpoint:
    return Endpoint(**{"model": "scribe", "base_url": server.address, "timeout": 30, "retries": 2, **more})


def words(model: Model, out: Path, *more: object) -> list[object]:
    about = ["--classes", ", ".join(CLASSES), "--modality", "CT", "--organ", "kidney", "--n", 12, "--model", "scribe"]
    return ["prompts", "generate", *about, "--base-url", model.address, "--out", out, "--retries", 2, *more]


def untroubled() -> dict[str, list[str]]:
    return {c: [s for r in range(2) for s in write(messages(WANTED, c, r)[-1]["content"])][:12] for c in CLASSES}


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- what comes of it


def test_every_class_gets_n_different_sentences(model: Model, cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    table, provenance = generate(WANTED, endpoint(model), cache, lambda *progress: told.append(progress))
    assert table == untroubled()
    assert [len(sentences) for sentences in table.values()] == [12, 12, 12]
    assert check_sentences(table) == []
    assert (told[0], told[-1]) == (("writing sentences", 0, 36), ("writing sentences", 36, 36))
    assert provenance["model"] == "scribe"
    assert provenance["model_reported"] == ["scribe-2026-01"]
    assert provenance["tokens"] == {"prompt_tokens": 1200, "completion_tokens": 600}
    assert [(r["class"], r["kept"], r["dropped"]) for r in provenance["requests"]] == [
        (name, kept, {}) for name in CLASSES for kept in (8, 4)
    ]


def test_the_file_is_one_that_train_reads(cli: Cli, model: Model, tmp_path: Path) -> None:
    result = cli(*words(model, tmp_path / "words.json"))
    assert (result.status, result.out) == (0, "")
    assert f"36 sentences in {tmp_path / 'words.json'}; 0 others did not pass the checks" in result.err
    content = json.loads((tmp_path / "words.json").read_text())
    assert list(content)[:5] == ["modality", "organ", "author", "date", "version"]
    assert content["author"] == "language model scribe"
    assert content["provenance"]["endpoint"] == model.address
    found = sentences_for(["Normal_Kidney", "kidney stone"], source=tmp_path / "words.json")
    assert found.by_class == tuple(tuple(untroubled()[name]) for name in ("normal kidney", "kidney stone"))
    again = cli(*words(model, tmp_path / "more.json", "--json"))
    assert json.loads(again.out) == {
        "out": str(tmp_path / "more.json"),
        "sentences": dict.fromkeys(CLASSES, 12),
        "dropped": 0,
    }


# -- what is sent


def test_nothing_is_sent_but_the_task(cli: Cli, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "mallory")
    monkeypatch.chdir(tmp_path)
    assert cli(*words(model, Path("out.json"))).status == 0
    assert {asked.path for asked in model.asked} == {"/v1/chat/completions"}
    fixed = Wanted(["<one>", "<two>", "<three>"], "<modality>", "<organ>")
    for number, asked in enumerate(model.asked):
        assert set(asked.body) == {"model", "messages", "response_format"}
        assert asked.body["response_format"]["json_schema"]["strict"] is True
        assert asked.body["response_format"]["json_schema"]["schema"]["required"] == ["sentences"]
        # whatever the task, the other words are the same
        text = json.dumps(messages(fixed, fixed.class_names[number // 2], number % 2))
        for sign, word in zip(
            ("<one>", "<two>", "<three>", "<modality>", "<organ>"), (*CLASSES, "CT", "kidney"), strict=True
        ):
            text = text.replace(sign, word)
        assert asked.body["messages"] == json.loads(text)
        sent = json.dumps([asked.path, {k: v for k, v in asked.headers.items() if k != "host"}, asked.body])
        for secret in ("mallory", str(tmp_path), str(Path.home()) + "/", "out.json"):
            assert secret not in sent
        assert asked.headers["user-agent"] == "biomedcoop"
        assert set(asked.headers) == {
            *("host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"),
            *("authorization", "x-stainless-raw-response"),
        }


def test_the_key_is_in_the_header_and_nowhere_else(
    cli: Cli, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")  # as it may come out of a file
    model.trouble = [None] * 6 + ["401"]
    for n in (12, 18):  # the second meets a server that repeats the key
        result = cli(*words(model, tmp_path / "words.json", "--n", n, "--overwrite"))
        assert KEY not in result.out + result.err
    assert "refuses the key (no such key: …)" in result.err
    assert {asked.headers["authorization"] for asked in model.asked} == {f"Bearer {KEY}"}
    assert all(KEY not in json.dumps(asked.body) for asked in model.asked)
    kept = files(tmp_path)
    assert len(kept) == 7
    assert all(KEY.encode() not in content for content in kept.values())


def test_a_local_server_needs_no_key(model: Model, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert generate(WANTED, endpoint(model), cache)[0] == untroubled()


def test_a_password_in_the_address_is_not_written_down(cli: Cli, model: Model, tmp_path: Path) -> None:
    address = model.address.replace("//", "//me:hush-hush@")
    result = cli(*words(model, tmp_path / "words.json", "--base-url", address))
    assert result.status == 0
    assert "hush-hush" not in result.out + result.err
    assert all(b"hush-hush" not in content for content in files(tmp_path).values())


# -- trouble that passes


@pytest.mark.parametrize(
    ("trouble", "requests"),
    [
        (["429"], 7),
        (["500"], 7),
        (["503", "429"], 8),
        ([None, "silence"], 7),
        (["hang up"], 7),
        ([None, "no http"], 7),
        (["broken off"], 7),
        ([None, None, "429", "500", None, "500"], 9),
        (["block", "block"], 6),
        (["thoughts", "thoughts"], 6),
        (["spaces"], 6),
        (["uncounted"], 6),
    ],
    ids=str,
)
def test_trouble_that_passes_leaves_no_trace(
    model: Model, cache: Path, trouble: list[str | None], requests: int
) -> None:
    model.trouble = list(trouble)
    table, provenance = generate(WANTED, endpoint(model, timeout=0.5 if "silence" in trouble else 30), cache)
    assert table == untroubled()
    assert len(provenance["requests"]) == 6
    assert len(model.asked) == requests


@pytest.mark.parametrize("refusal", ["400 format", "422 format", "no format"])
def test_an_endpoint_that_knows_no_schema_is_asked_in_words(model: Model, cache: Path, refusal: str) -> None:
    model.trouble, model.always = [refusal], "no format"
    assert generate(WANTED, endpoint(model), cache)[0] == untroubled()
    assert ["response_format" in asked.body for asked in model.asked] == [True] + [False] * 6
    model.trouble, model.asked = [], []
    assert generate(WANTED, endpoint(model), cache)[0] == untroubled()
    assert model.asked == []


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("html", "the reply is not a chat completion"),
        ("list", "the reply is not a chat completion"),
        ("words", "the answer is not the JSON that was asked for"),
        ("not sentences", "the answer is not the JSON that was asked for"),
        ("nested", "the answer is not the JSON that was asked for"),
        ("half a sign", "the answer is not the JSON that was asked for"),
        ("null", "the answer is not the JSON that was asked for"),
        ("parts", "the answer is not the JSON that was asked for"),
        ("empty", "the answer holds no sentence"),
        ("numbers", "the answer holds no sentence"),
        ("cut", "the answer was cut short"),
        ("refusal", "the model refuses: I would rather not"),
    ],
)
def test_answers_that_cannot_be_used(model: Model, cache: Path, trouble: str, reason: str) -> None:
    model.trouble = [None, trouble]
    table, provenance = generate(WANTED, endpoint(model), cache)
    assert [len(sentences) for sentences in table.values()] == [12, 12, 12]
    assert check_sentences(table) == []
    assert [r.get("unusable") for r in provenance["requests"]] == [None, reason, *[None] * 5]
    assert len(files(cache)) == 6  # it is not kept: another time may bring a better one
    # where no better one comes
    model.always = trouble
    with pytest.raises(UserError) as caught:
        generate(Wanted(["a", "b"], "CT", "kidney"), endpoint(model), cache)
    assert f"'a' has 0 of 50 sentences and scribe brings no new ones ({reason}); see model" in str(caught.value)
    assert len(model.asked) == 7 + 4


@pytest.mark.parametrize(
    ("trouble", "kept", "dropped"),
    [
        ("few", 2, {}),
        ("repeat", 1, {"repeat": 7}),
        ("near-repeat", 1, {"near-repeat": 7}),
        ("opening", 2, {"opening": 6}),
        ("length", 0, {"length": 2}),
        ("other class", 0, {"other class": 8}),
    ],
)
def test_sentences_that_do_not_pass_the_checks(
    model: Model, cache: Path, trouble: str, kept: int, dropped: dict[str, int]
) -> None:
    model.trouble = [trouble]
    table, provenance = generate(WANTED, endpoint(model), cache)
    assert [len(sentences) for sentences in table.values()] == [12, 12, 12]
    assert check_sentences(table) == []
    assert (provenance["requests"][0]["kept"], provenance["requests"][0]["dropped"]) == (kept, dropped)


def test_a_sentence_belongs_to_one_class(model: Model, cache: Path) -> None:
    model.always = "shared"
    with pytest.raises(UserError, match=r"'kidney stone' has 0 of 8 .*is also a sentence of 'kidney cyst'"):
        generate(Wanted(CLASSES, "CT", "kidney", 8), endpoint(model), cache)


# -- trouble that stays


@pytest.mark.parametrize(
    ("trouble", "message", "requests"),
    [
        ("429", "still limits the rate after 2 retries (slow down); try later or with --per-minute; answers so far", 3),
        ("quota", "the account of this key has no credit left (You exceeded your current quota); see its billing", 1),
        ("307", "failed with status 307", 1),
        ("500", "failed with status 500 after 2 retries (out of order); try later; answers so far are kept", 3),
        ("503", "failed with status 503 after 2 retries", 3),
        ("402", "failed with status 402 (no credit left); try later; answers so far are kept", 1),
        ("401", "refuses the key (no such key: …); set OPENAI_API_KEY to a key of this endpoint", 1),
        ("403", "refuses the key (not for your region)", 1),
        ("404", "does not exist (no model 'scribe'); see --model and --base-url", 1),
        ("400", "refuses the request: temperature is out of range; see --model and --temperature", 1),
        ("same", "'kidney cyst' has 8 of 12 sentences and scribe brings no new ones (the last: '", 5),
    ],
)
def test_trouble_that_stays_is_one_line_and_costs_nothing(
    cli: Cli, model: Model, tmp_path: Path, trouble: str, message: str, requests: int
) -> None:
    out = tmp_path / "words.json"
    if trouble != "same":
        model.trouble = [None, None, None]
    model.always = trouble
    result = cli(*words(model, out))
    assert (result.status, result.out) == (2, "")
    _, line = result.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert len(line) < 500
    assert not out.exists()
    assert len(model.asked) == requests + (3 if trouble != "same" else 0)
    if trouble != "same":
        answered = model.answered[:3]
        model.always, model.answered = None, []
        assert cli(*words(model, out)).status == 0
        assert len({*answered, *model.answered}) == len(answered) + len(model.answered) == 6
        assert json.loads(out.read_text())["classes"] == untroubled()


def test_a_model_with_little_to_say(model: Model, cache: Path) -> None:
    model.always = "one"
    with pytest.raises(UserError, match=r"has 40 of 50 .* brings too few at a time; ask for fewer with n=40, or"):
        # every request brings one sentence; there is an end to asking all the same
        generate(Wanted(CLASSES, "CT", "kidney", 50), endpoint(model), cache)


def test_no_answer_in_time(model: Model, cache: Path) -> None:
    model.always = "silence"
    start = time.monotonic()
    with pytest.raises(UserError, match=r"no answer within 0\.2 s, 2 times; raise timeout or try later; answers"):
        generate(WANTED, endpoint(model, timeout=0.2, retries=1), cache)
    assert time.monotonic() - start < 10
    assert len(model.asked) == 2


@pytest.mark.parametrize("trouble", ["hang up", "no http", "broken off"])
def test_a_connection_that_breaks(model: Model, cache: Path, trouble: str) -> None:
    model.always = trouble
    with pytest.raises(UserError, match=r"scribe at http://127.* cannot be reached \(.*\); see base_url; answers so"):
        generate(WANTED, endpoint(model, retries=0), cache)


def test_no_one_listens(free_address: str, cache: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be reached \(.*refused.*\); see base_url; answers so far are kept"):
        generate(WANTED, Endpoint("scribe", free_address, retries=0), cache)


def test_a_cache_that_cannot_be_written(model: Model, cache: Path) -> None:
    cache.parent.write_text("a file where a folder should be")
    with pytest.raises(UserError, match=f"cannot write {cache}: "):
        generate(WANTED, endpoint(model), cache)
    assert not model.asked, "nothing is paid for that cannot be kept"


# -- going on


@pytest.mark.parametrize("answers", range(6))
def test_a_run_that_died_goes_on(model: Model, cache: Path, answers: int) -> None:
    model.trouble = [None] * answers + ["hang up"]
    with pytest.raises(UserError, match="cannot be reached"):
        generate(WANTED, endpoint(model, retries=0), cache)
    assert len(files(cache)) == answers
    assert generate(WANTED, endpoint(model), cache)[0] == untroubled()
    assert len(model.answered) == len(set(model.answered)) == 6
    assert len(model.asked) == 7


def test_a_second_run_sends_nothing_and_writes_the_same(cli: Cli, model: Model, tmp_path: Path) -> None:
    model.trouble = ["block", "few", "repeat"]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert cli(*words(model, first)).status == 0
    asked = len(model.asked)
    assert cli(*words(model, second)).status == 0
    assert len(model.asked) == asked
    assert first.read_bytes() == second.read_bytes()


def test_more_sentences_send_what_is_new(model: Model, cache: Path) -> None:
    few, _ = generate(WANTED, endpoint(model), cache)
    before = [asked.text for asked in model.asked]
    many, _ = generate(Wanted(CLASSES, "CT", "kidney", 70), endpoint(model), cache)
    assert [len(sentences) for sentences in many.values()] == [70, 70, 70]
    assert {name: sentences[:12] for name, sentences in many.items()} == few
    assert check_sentences(many) == []
    asked = [asked.text for asked in model.asked]
    assert len(set(asked)) == len(asked) == 27
    assert asked[:6] == before
    assert "This is set 2" in asked[-1]


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": 0.5}, {"structured": False}],
    ids=str,
)
def test_another_request_is_another_answer(model: Model, cache: Path, change: dict[str, Any]) -> None:
    generate(WANTED, endpoint(model), cache)
    generate(WANTED, endpoint(model, **change), cache)
    assert len(model.asked) == 12
    assert model.asked[-1].body != model.asked[5].body


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"[]",
        lambda content: b"\xff\xfe",
        lambda content: b'{"sentences": [], "date": "2026-01-01", "model": "m", "usage": {}}',
        lambda content: b'{"sentences": ["a", 3], "date": "2026-01-01", "model": "m", "usage": {}}',
        lambda content: content.replace(b'"usage"', b'"use"'),
        lambda content: content.replace(b'"date": "', b'"date": 20, "when": "'),
    ],
)
def test_a_damaged_answer_is_asked_for_again(model: Model, cache: Path, damage: Callable[[bytes], bytes]) -> None:
    generate(WANTED, endpoint(model), cache)
    path = sorted(cache.iterdir())[2]
    path.write_bytes(damage(path.read_bytes()))
    table, provenance = generate(WANTED, endpoint(model), cache)
    assert table == untroubled()
    assert provenance["tokens"] == {"prompt_tokens": 1200, "completion_tokens": 600}
    assert len(model.asked) == 7
    generate(WANTED, endpoint(model), cache)
    assert len(model.asked) == 7


def test_requests_keep_their_distance(model: Model, cache: Path) -> None:
    paced = endpoint(model, per_minute=400)
    start = time.monotonic()
    generate(WANTED, paced, cache)
    asked = time.monotonic()
    generate(WANTED, paced, cache)
    assert asked - start >= 5 * 60 / 400
    assert time.monotonic() - asked < 5 * 60 / 400  # what is there already waits for nothing


@pytest.mark.parametrize("answers", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_ctrl_c(cli: Cli, model: Model, tmp_path: Path, cache: Path, answers: int) -> None:
    out = tmp_path / "words.json"
    command = [sys.executable, "-m", "biomedcoop", *map(str, words(model, out))]
    model.trouble = [*[None] * answers, "silence"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts its background jobs with SIGINT ignored, and so does what runs the tests there
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while len(model.asked) <= answers:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, printed) == (130, "")
    kept = "the answers so far are kept; the same command continues from there"
    assert said.splitlines()[1:] == [kept, "interrupted; no result was written"]
    assert not out.exists()
    assert len(files(tmp_path)) == len(list(cache.glob("*.json"))) == answers  # no half of a file either
    assert cli(*words(model, out)).status == 0
    assert json.loads(out.read_text())["classes"] == untroubled()
    assert len(model.answered) == len(set(model.answered)) == 6


# -- before anything is sent


def test_dry_run_needs_nothing(cli: Cli, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setitem(sys.modules, "openai", None)  # as if it were not installed
    result = cli(*words(model, tmp_path / "words.json", "--dry-run", "--price", "1,2"))
    assert result.status == 0
    shown = json.loads(result.out)
    assert shown["url"] == f"{model.address}/chat/completions"
    assert shown["first_request"] == request_body(WANTED, endpoint(model), "kidney cyst", 0)
    assert shown["estimate"]["requests"] == 6
    assert "would send 6 requests or a few more to scribe" in result.err
    assert model.asked == []
    assert list(tmp_path.iterdir()) == []


def test_without_the_client(
    refused: Refused, model: Model, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    line = refused(*words(model, tmp_path / "words.json"))
    assert line == "error: the openai client is not installed; pip install 'biomedcoop[llm]'"
    with pytest.raises(UserError, match=r"pip install 'biomedcoop\[llm\]'"):
        generate(WANTED, endpoint(model), cache)


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_without_a_key(
    refused: Refused, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    line = refused(*words(model, tmp_path / "words.json", "--base-url", DEFAULT_URL))
    for word in ("no key", "OPENAI_API_KEY", "--base-url", "OPENAI_BASE_URL", "--dry-run"):
        assert word in line


@pytest.mark.parametrize("key", ["sk-s…", "two words", "sk-\x07"])
def test_a_key_that_is_none(
    refused: Refused, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    line = refused(*words(model, tmp_path / "words.json"))
    assert "the key in OPENAI_API_KEY holds characters that no key has" in line
    assert key not in line


def test_the_address_can_come_from_the_environment(
    cli: Cli, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", model.address + "/")
    options = words(model, tmp_path / "words.json")
    at = options.index("--base-url")
    assert cli(*options[:at], *options[at + 2 :]).status == 0
    assert {asked.path for asked in model.asked} == {"/v1/chat/completions"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n", 0], "n=0 must be between 1 and 500"),
        (["--n", 501], "n=501 must be between 1 and 500"),
        (["--n", "many"], "'--n'"),
        (["--classes", "cyst"], "--classes 'cyst': name at least two classes"),
        (["--classes", " , "], "name at least two classes"),
        (["--classes", "cyst, stone, Cyst"], "'Cyst' is there twice"),
        (["--classes", "cyst, st\x1bone"], "must be one or more words, on one line"),
        (["--modality", " "], "modality '' must be one or more words"),
        (["--organ", ""], "organ '' must be one or more words"),
        (["--price", "1"], "--price '1': want two numbers"),
        (["--price", "1,x"], "want two numbers"),
        (["--price", "1,-2"], "want two numbers"),
        (["--price", "nan,1"], "want two numbers"),
        (["--price", "1,2,3"], "want two numbers"),
        (["--temperature", 2.5], "--temperature 2.5: must be between 0 and 2"),
        (["--timeout", 0], "--timeout 0: must be 0.001 or more"),
        (["--retries", -1], "--retries -1: must be 0 or more"),
        (["--per-minute", -1], "--per-minute -1: must be 0 or more"),
        (["--per-minute", "nan"], "--per-minute nan: must be 0 or more"),
        (["--base-url", "localhost:11434/v1"], "want an address such as http://localhost:11434/v1"),
        (["--base-url", "ftp://localhost/v1"], "want an address"),
        (["--base-url", "http://localhost:port/v1"], "want an address"),
        (["--base-url", "http://[::1"], "want an address"),
        (["--out", "words.csv"], "give a name that ends with .json"),
        (["--out", "nowhere/words.json"], "nowhere is not a folder; create it first"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(
    refused: Refused, model: Model, tmp_path: Path, more: list[object], message: str
) -> None:
    assert message in refused(*words(model, tmp_path / "words.json", *more))
    assert model.asked == []
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file(cli: Cli, refused: Refused, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "words.json"
    out.write_text("mine")
    assert "exists already; choose another name or pass --overwrite" in refused(*words(model, out))
    assert out.read_text() == "mine"
    assert model.asked == []
    assert cli(*words(model, out, "--overwrite")).status == 0
    assert json.loads(out.read_text())["classes"] == untroubled()


@pytest.mark.parametrize(("n", "rounds"), [(1, 1), (8, 2), (50, 7), (80, 11), (500, 69)])
def test_estimate(n: int, rounds: int) -> None:
    """A tenth more sentences than wanted, eight at a time, thirty tokens each; four characters are a token of the input."""
    wanted = Wanted(CLASSES, "CT", "kidney", n)
    openai = Endpoint("gpt-4.1-mini")
    expected = estimate(wanted, openai)
    sent = sum(len(json.dumps(request_body(wanted, openai, name, r))) for name in CLASSES for r in range(rounds))
    assert expected.requests == 3 * rounds
    assert expected.input_tokens == pytest.approx(sent / 4, abs=1)
    assert expected.output_tokens == 3 * rounds * 8 * 30
    assert expected.dollars == pytest.approx((0.40 * sent / 4 + 1.60 * expected.output_tokens) / 1e6)
    assert estimate(wanted, openai, (1.0, 0.0)).dollars == pytest.approx(sent / 4 / 1e6)


def test_a_price_is_known_at_openai_only(model: Model) -> None:
    assert estimate(WANTED, Endpoint("gpt-4.1-mini", model.address)).dollars is None
    assert estimate(WANTED, Endpoint("gpt-99")).dollars is None
