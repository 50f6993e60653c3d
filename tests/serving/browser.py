"""A real headless Chromium, driven by its own protocol."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium")

KEYS = {"ArrowDown": 40, "Enter": 13, "Escape": 27, "Tab": 9}


class Page:
    """One tab. `problems` are what its console says is wrong: errors, and what the security policy forbids."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(timeout=30))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(json.dumps(message["params"]))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def open(self, url: str, width: int = 1280, height: int = 1400) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        before = self.value("performance.timeOrigin")
        self.command("Page.navigate", url=url)
        self.until(f"performance.timeOrigin !== {before} && document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """Of a JavaScript expression, as JSON has it."""
        answer = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 20.0) -> None:
        """Wait until the expression is true."""
        over = time.monotonic() + seconds
        while not self.value(script):
            assert time.monotonic() < over, f"{script}\n{self.text('body')}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """As it is seen: hidden parts say nothing."""
        return self.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector: str) -> list[str]:
        return self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)")

    def type(self, text: str) -> None:
        self.command("Input.insertText", text=text)

    def press(self, key: str) -> None:
        about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.command("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": "\r"} if key == "Enter" else {}))
        self.command("Input.dispatchKeyEvent", type="keyUp", **about)


@contextmanager
def opened_page(profile: Path) -> Iterator[Page]:
    """A browser of its own, with nothing remembered; `profile` is a folder that it may fill."""
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    process = subprocess.Popen(
        [CHROMIUM, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )
    try:
        with connect(tab_of(profile), max_size=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(timeout=20)


def tab_of(profile: Path) -> str:
    """The address of the one tab, once the browser has said where it listens."""
    said, over = profile / "DevToolsActivePort", time.monotonic() + 60
    while not (said.exists() and re.match(r"\d+\n", said.read_text())):
        assert time.monotonic() < over, "chromium does not start"
        time.sleep(0.05)
    port = int(said.read_text().splitlines()[0])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
        (tab,) = [one for one in json.load(answer) if one["type"] == "page"]
    return tab["webSocketDebuggerUrl"]
