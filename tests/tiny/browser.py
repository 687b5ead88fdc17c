"""The test's side of a headless Chromium."""

import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.tiny.cluster import ROOT

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Left": "\ue012", "Right": "\ue014", "Space": " "}
_PYTHON = ROOT / ".tools" / "bin" / "python"


def why_none() -> str | None:
    """Why no browser can be had here; None where one can."""
    if not (shutil.which("chromium") or shutil.which("google-chrome")) or not shutil.which("chromedriver"):
        return "needs chromium and chromedriver on the PATH"
    if not _PYTHON.is_file() or subprocess.run([_PYTHON, "-c", "import selenium"], capture_output=True).returncode:
        return "needs selenium, which `make tools` installs"
    return None


class Browser:
    """A context; each method raises AssertionError with what the browser said where it cannot do it."""

    def __enter__(self) -> "Browser":
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        command = [
            str(_PYTHON),
            str(Path(__file__).with_name("browser_driver.py")),
            str(chromium),
            str(shutil.which("chromedriver")),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self._line())["ready"]
        self.screen(1280, 900)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        self._do("screen", width=width, height=height, dark=dark)

    def open(self, url: str) -> None:
        self._do("open", url=url)

    def keep_token(self, url: str, token: str) -> None:
        """Give the service's page the token that this tab keeps, before the page is loaded and asks without one.

        What a page before it has logged is forgotten.
        """
        self.open(f"{url}/healthz")
        self.run("sessionStorage.setItem('orpo-ray-token', arguments[0])", token)
        self.console()

    def run(self, script: str, *arguments: Any) -> Any:
        """What JavaScript returns; `arguments[0]` … are given to it."""
        return self._do("run", script=script, arguments=arguments)

    def until(self, script: str, seconds: float = 30.0) -> Any:
        """Wait until JavaScript returns something true; that."""
        return self._do("until", script=script, seconds=seconds)

    def sees(self, text: str, seconds: float = 30.0) -> None:
        """Wait until the page shows a text."""
        self.until(f"return document.body.innerText.includes({json.dumps(text)})", seconds)

    def keys(self, *names: str) -> None:
        """Press keys, by name or as a text."""
        self._do("keys", keys=[KEYS.get(name, name) for name in names])

    def picture(self, file: Path) -> None:
        self._do("picture", file=str(file))

    def console(self) -> list[str]:
        """What the page has logged, and what it failed to load, since the last time."""
        found: list[str] = self._do("console")
        return found

    def _do(self, what: str, **given: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps({"what": what, **given}), file=self._process.stdin, flush=True)
        answer = json.loads(self._line())
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the browser has ended"
        return line
