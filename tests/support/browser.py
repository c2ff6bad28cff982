"""Chromium without a window, driven over a pair of pipes: it opens a page, clicks, types and looks.

``--remote-debugging-pipe`` makes Chromium read the messages of its DevTools protocol, JSON with a
zero byte after each, from descriptor 3, and write its own to descriptor 4; so no library is needed.
"""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find():
    """Where Chromium is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page; use as a context manager.

    Attributes
    ----------
    errors : list of str
        What scripts of the page failed with, and what it wrote to the console as errors.
    requests : list of str
        Addresses that it asked for.
    """

    def __init__(self, width=1200, height=900, limit=60):
        self.limit, self.size = limit, (width, height)
        self.errors, self.requests = [], []
        self._number, self._rest, self._session = 0, b"", None

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def arrange():  # in the child: the pipes as descriptors 3 and 4, wherever they were
            os.dup2(os.dup(to_browser), 10)
            os.dup2(os.dup(from_browser), 11)
            os.dup2(10, 3)
            os.dup2(11, 4)
        self._process = subprocess.Popen(
            [find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
             f"--user-data-dir={self._profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=arrange, close_fds=False, start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        try:
            targets = self._ask("Target.getTargets")["targetInfos"]
            target = next(each for each in targets if each["type"] == "page")["targetId"]
            self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)[
                "sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self._ask(f"{domain}.enable")
            self.resize(*self.size)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()  # a handle to the process that was started here
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def _ask(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._write, content):]
        answer = self._until(lambda said: said.get("id") == self._number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _until(self, wanted):
        """Read messages up to the one that is wanted."""
        end = time.monotonic() + self.limit
        while True:
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
                content = os.read(self._read, 2 ** 20) if ready else b""
                assert content, "Chromium does not answer"
                self._rest += content
            line, _, self._rest = self._rest.partition(b"\0")
            said = json.loads(line)
            self._note(said)
            if wanted(said):
                return said

    def _note(self, said):
        about = said.get("params", {})
        if said.get("method") == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif said.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(about["entry"]["text"])
        elif said.get("method") == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.errors.append(str(about["args"]))
        elif said.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def open(self, address):
        """Go to an address and wait until it is loaded."""
        self._ask("Page.navigate", url="about:blank")
        self._until(lambda said: said.get("method") == "Page.loadEventFired")
        self._ask("Page.navigate", url=address)
        self._until(lambda said: said.get("method") == "Page.loadEventFired")

    def run(self, script):
        """The value of an expression in the page (of a promise, too)."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True,
                           awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector):
        """Click into the middle of an element, with the mouse."""
        x, y = self.run(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{block: "center", inline: "center"}});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key):
        """Press a key: "ArrowDown", "Tab", "Enter"."""
        more = {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      **(more if kind == "keyDown" else {}))

    def resize(self, width, height, scale=1, mobile=False):
        """Give the window a size, CSS pixels."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=mobile)

    def prefer(self, scheme="light", media=""):
        """Be dark or light, a screen or paper ("print")."""
        self._ask("Emulation.setEmulatedMedia", media=media, features=[
            {"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, clip=None, scale=1):
        """A PNG of the window, or of a part (x, y, width, height) of the page."""
        more = {}
        if clip:
            x, y, width, height = clip
            more = {"clip": {"x": x, "y": y, "width": width, "height": height, "scale": scale},
                    "captureBeyondViewport": True}
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png", **more)["data"])

    def pdf(self):
        """The page as it is printed."""
        return base64.b64decode(self._ask("Page.printToPDF", preferCSSPageSize=True,
                                          printBackground=False)["data"])
