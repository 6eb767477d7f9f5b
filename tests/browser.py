"""A page as Chromium lays it out: what sticks out of a window of some width, and what the page complains of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from needs import needs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = needs(None if CHROMIUM else "needs Chromium (tools/test_programs.sh installs it where apt is)")

# The page stands in a frame of the width asked for. Folds are opened; what scrolls in a box of its own is no fault.
FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe src="%s" style="border:0;width:%dpx;height:900px"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement
  const scrolls = e => e && (getComputedStyle(e).overflowX != "visible" || scrolls(e.parentElement))
  page.querySelectorAll("details").forEach(fold => fold.open = true)
  const outside = [...page.body.querySelectorAll("*")].filter(e => {
    const box = e.getBoundingClientRect()
    return box.width && (box.right > root.clientWidth + 1 || box.left < -1) && !scrolls(e.parentElement)
  })
  document.getElementById("found").textContent = JSON.stringify({
    window: root.clientWidth, page: root.scrollWidth, headings: page.querySelectorAll("h2").length,
    outside: outside.map(e => `${e.tagName} ${e.getAttribute("class") ?? ""}: ${e.textContent.trim().slice(0, 40)}`),
  })
})
</script>"""


@dataclass(frozen=True)
class Layout:
    """Pixels of the window and of the page that scrolls in it; `outside`: elements that stick out of the window."""

    window: int
    page: int
    headings: int
    outside: list[str]
    complaints: list[str]


def laid_out(page: Path, width: int, scratch: Path) -> Layout:
    """`page` in a window of `width` pixels. `scratch`: a folder for the frame around it and the browser's profile."""
    assert CHROMIUM
    frame = scratch / f"frame_{width}.html"
    frame.write_text(FRAME % (page.resolve().as_uri(), width), encoding="utf-8")
    switches = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
        "--disable-component-update", "--disable-background-networking", "--disable-sync",
        "--allow-file-access-from-files", "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={scratch / f'profile_{width}'}", "--window-size=1400,1000", "--hide-scrollbars",
        "--virtual-time-budget=20000", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run([CHROMIUM, *switches, frame.as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the browser gave no layout: {done.stderr[-2000:]}"
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Layout(**json.loads(unescape(found.group(1))), complaints=complaints)


def check_fits(page: Path, width: int, scratch: Path) -> None:
    """The page is no wider than its window, whole, and complains of nothing."""
    found = laid_out(page, width, scratch)
    assert (found.window, found.page, found.outside, found.complaints) == (width, width, [], [])
    assert found.headings >= 5


def check_long_name_fits(page: Path, name: str, scratch: Path) -> None:
    """On a phone it stays so where 160 letters without a gap stand for `name`."""
    text = page.read_text()
    assert name in text
    long = scratch / "long.html"
    long.write_text(text.replace(name, 160 * "Z"))
    check_fits(long, 400, scratch)
