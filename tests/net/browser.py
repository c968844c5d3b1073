"""A headless Chromium on a node of the bed, driven by WebDriver (W3C) over plain HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
from pathlib import Path
from typing import Any

from bpf.netns import entered
from tests.bed import Host
from tests.bed.process import until

PORT = 9515
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def missing() -> str:
    """Why there is none here; "": there is."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"needs {program} (Debian's chromium and chromium-driver)"
    return ""


class Browser:
    """One window. `folder` takes its profile."""

    def __init__(self, host: Host, folder: Path) -> None:
        path = Path("/run/netns") / host.namespace
        flags = [*_FLAGS, f"--user-data-dir={folder}"]
        self._driver = host.spawn(
            "chromedriver", f"--port={PORT}",
            ready=lambda process: "started successfully" in process.output,
        )  # fmt: skip
        with entered(path):
            self._connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
            self._connection.connect()
        options = {"args": flags, "binary": shutil.which("chromium")}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    def look(self, *, width: int, height: int, dark: bool) -> None:
        """A window of this size, on a system that prefers this colour."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._cdp("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", {"features": [scheme]})

    def _cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        return self.post("goog/cdp/execute", cmd=command, params=parameters)

    def close(self) -> None:
        """The window and the driver go."""
        self._ask("DELETE", self._session, None)
        self._connection.close()
        self._driver.end()

    def _ask(self, method: str, path: str, body: Any) -> Any:
        raw = None if body is None else json.dumps(body)
        self._connection.request(method, path, raw, {"Content-Type": "application/json"})
        answer = json.loads(self._connection.getresponse().read())["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def post(self, what: str, **body: Any) -> Any:
        """A command of this session."""
        return self._ask("POST", f"{self._session}/{what}", body)

    def go(self, url: str) -> None:
        """Open a page."""
        self.post("url", url=url)

    def run(self, script: str) -> Any:
        """What a script in the page returns."""
        return self.post("execute/sync", script=f"return {script}", args=[])

    def await_true(self, script: str) -> None:
        """Until a script in the page says so."""
        until(lambda: bool(self.run(script)), script, timeout=20)

    def keys(self, text: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        presses = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.post("actions", actions=[{"type": "key", "id": "keys", "actions": presses}])

    def errors(self) -> list[str]:
        """What the page complained about."""
        found = self.post("se/log", type="browser")
        return [one["message"] for one in found if one["level"] in ("SEVERE", "WARNING")]

    def shot(self, path: Path) -> None:
        """A picture of the whole page."""
        size = self.run("[document.documentElement.scrollWidth, document.body.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1] + 20, "scale": 1}
        made = self._cdp("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(made["data"]))
