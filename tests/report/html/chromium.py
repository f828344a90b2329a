"""Headless Chromium driven over a pipe by the DevTools protocol, without a driver package.

https://chromedevtools.github.io/devtools-protocol/: commands and events are JSON texts that end with a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
WAIT = 60.0
"""Longest wait for an answer, s."""

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


class Page:
    """One open page; ``with Page(folder) as page`` ends the browser.

    Attributes:
        complaints: errors and warnings of the console, uncaught exceptions, blocked requests.
        requests: addresses that the page asked for.
    """

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM.exists(), f"{CHROMIUM} is missing; install Debian's package chromium"
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number, self._rest, self._answers = 0, b"", {}
        self._loaded = False
        to_browser, self._in = os.pipe()
        self._out, from_browser = os.pipe()

        def fixed_numbers() -> None:
            """The browser reads commands from file 3 and writes to file 4; copies first, so that neither hides the other."""
            read, write = os.dup(to_browser), os.dup(from_browser)
            spare = [os.dup(read), os.dup(write)]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *ARGUMENTS, f"--user-data-dir={profile}"],
            stderr=subprocess.DEVNULL,
            preexec_fn=fixed_numbers,
            close_fds=False,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session = ""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._in, json.dumps(command).encode() + b"\0")
        self._until(lambda: self._number in self._answers, method)
        answer = self._answers.pop(self._number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(self, page: Path | str) -> None:
        """Open a file or an address."""
        self._loaded = False
        self("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        self._until(lambda: self._loaded, str(page))

    def value(self, script: str) -> Any:
        """The value of an expression in the page, or what its promise becomes."""
        return self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + WAIT
        while not self.value(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files, or one folder, in a file input."""
        found = self("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]["objectId"]
        self("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=found)

    def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13, "Space": 32, "ArrowLeft": 37, "ArrowRight": 39}[key]
        text = {"Enter": "\r", "Space": " "}.get(key)
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            name = " " if key == "Space" else key
            self("Input.dispatchKeyEvent", type=kind, key=name, code=key, windowsVirtualKeyCode=code, **more)

    def prefer(self, scheme: str) -> None:
        """The system's colour scheme: "light" or "dark"."""
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int = 900) -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def screenshot(self, *, whole: bool = True) -> bytes:
        """The page as PNG."""
        return base64.b64decode(self("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self("Page.printToPDF", printBackground=True)["data"])

    def _until(self, done: Any, what: str) -> None:
        end = time.monotonic() + WAIT
        while not done():
            ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium gives no answer to {what}"
            content = os.read(self._out, 1 << 20)
            assert content, "Chromium has ended"
            *messages, self._rest = (self._rest + content).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        event, values = message["method"], message.get("params", {})
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(values["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.complaints.append(values["entry"]["text"])
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(values["args"]))
