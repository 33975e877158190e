"""Browser: a headless Chromium, told what to do by its DevTools protocol over two pipes.

One process for all tests of a run, a page of its own for each. Every request that a page makes is seen here,
and refused unless it is for the page itself.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 60.0
_KEYS = {"ArrowDown": 40, "ArrowUp": 38, "Tab": 9, " ": 32, "Enter": 13}


def program() -> str:
    """Return the browser's program, nothing if there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), "")


@functools.cache
def why_not() -> str:
    """Return why no browser can be used, nothing if one can."""
    if not program():
        return "no Chromium here (Debian: chromium)"
    try:
        with Browser() as browser, browser.page("<title>hello</title>") as page:
            return "" if page.value("document.title") == "hello" else "Chromium shows no page"
    except (OSError, RuntimeError) as error:
        return f"Chromium does not start: {error}"


class Browser:
    """A context manager: the process, and what it answers."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        self._pages: dict[str, Page] = {}
        self._left = b""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            for_it, self._write = os.pipe()
            self._read, from_it = os.pipe()
            command = [
                program(),
                "--headless",
                "--no-sandbox",  # it refuses to run as root with one
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-extensions",
                f"--user-data-dir={profile}",
                "--remote-debugging-pipe",
                "about:blank",
            ]
            # It reads from file descriptor 3 and writes to 4.
            script = f'exec "$@" 3<&{for_it} 4>&{from_it}'
            self._process = subprocess.Popen(
                ["bash", "-c", script, "bash", *command],
                pass_fds=(for_it, from_it),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(self._end)
            os.close(for_it)
            os.close(from_it)
            self.call("Target.setDiscoverTargets", discover=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    @contextlib.contextmanager
    def page(self, html: str | Path, **look: Any) -> Iterator[Page]:
        """Open a page; see Page.look for how it looks."""
        with tempfile.TemporaryDirectory() as folder:
            path = html if isinstance(html, Path) else Path(folder) / "page.html"
            if isinstance(html, str):
                path.write_text(html)
            page = Page(self, path, **look)
            try:
                yield page
            finally:
                self.call("Target.closeTarget", targetId=page.target)

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result. Raises RuntimeError."""
        number = self.post(method, session, **parameters)
        while True:
            answer = self._message(method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._event(answer)

    def post(self, method: str, session: str = "", **parameters: Any) -> int:
        """Call a method without waiting for its result; return the number of the call."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return number

    def wait(self, session: str, method: str) -> None:
        """Wait for an event."""
        while not self.events(session, method):
            self._event(self._message(method))

    def _event(self, message: dict[str, Any]) -> None:
        """Keep an event; a request of a page is answered at once, since the page waits for it."""
        page = self._pages.get(message.get("sessionId", ""))
        if page and message.get("method") == "Fetch.requestPaused":
            page.requested(message["params"])
        elif "method" in message:
            self._events.append(message)

    def events(self, session: str, method: str) -> list[dict[str, Any]]:
        """Take the events of a kind that have come."""
        taken = [e for e in self._events if e.get("sessionId") == session and e.get("method") == method]
        self._events = [event for event in self._events if event not in taken]
        return [event["params"] for event in taken]

    def _message(self, waiting_for: str) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise RuntimeError(f"{waiting_for}: no answer in {_SECONDS:.0f} seconds")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError(f"{waiting_for}: the browser has ended")
            self._left += data
        line, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


class Page:
    """A page in a tab of its own. `requests` are the addresses that it has asked for besides its own."""

    def __init__(self, browser: Browser, path: Path, **look: Any) -> None:
        self._browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)
        self._session: str = attached["sessionId"]
        browser._pages[self._session] = self
        self._address = path.resolve().as_uri()
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Fetch.enable", patterns=[{"urlPattern": "*"}])
        self.look(**look)
        self.call("Page.navigate", url=self._address)
        browser.wait(self._session, "Page.loadEventFired")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol about this page."""
        return self._browser.call(method, self._session, **parameters)

    def look(
        self,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
        scale: float = 1,
        script: bool = True,
        media: str = "",
    ) -> None:
        """Say how it is shown: its width in pixels, `light` or `dark`, with scripts, `print` or a screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Emulation.setScriptExecutionDisabled", value=not script)

    def requested(self, paused: dict[str, Any]) -> None:
        """Let a request for the page itself go on; refuse any other and keep it in `requests`."""
        request = {"requestId": paused["requestId"]}
        if paused["request"]["url"].partition("#")[0] == self._address:
            self._browser.post("Fetch.continueRequest", self._session, **request)
        else:
            self.requests.append(paused["request"]["url"])
            self._browser.post("Fetch.failRequest", self._session, **request, errorReason="Aborted")

    def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, which may be a promise."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression[:80]}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def complaints(self) -> list[str]:
        """Return what the browser has to say about the page: what its policy forbids, errors of scripts."""
        self.value("0")
        logged = [e["entry"]["text"] for e in self._browser.events(self._session, "Log.entryAdded")]
        thrown = self._browser.events(self._session, "Runtime.exceptionThrown")
        return logged + [str(each["exceptionDetails"]) for each in thrown]

    def press(self, *keys: str) -> None:
        """Press keys of the keyboard, one after the other."""
        for key in keys:
            code = _KEYS[key]
            text = {"text": key} if key == " " else {}
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=key,
                    code="Space" if key == " " else key,
                    windowsVirtualKeyCode=code,
                    **(text if kind == "keyDown" else {}),
                )

    def click(self, selector: str) -> None:
        """Click in the middle of the first element of a selector with the mouse."""
        where = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1
            )

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG file."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """Print it, as the page's own style says."""
        printed = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(printed["data"]))
