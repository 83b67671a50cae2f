"""The README's pictures, from the demo: `make screenshots`.

The demo's director, clients, Git, borgmatic and Borg run for some minutes; a person edits a file by hand, breaks a
commit, and starts a large backup; Chromium takes the pictures. They go to ``docs/images/``. Only the picture of twenty
clients is of the tests' seeded store.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.async_api import async_playwright

from tools.look import FLAGS, dashboard_of_the_tests

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "examples" / "demo"))

from checks import Promises  # noqa: E402 - the demo is no package
from demo import set_the_stage  # noqa: E402
from stage import Stage, wait_for  # noqa: E402

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

RUNS = 12
"""How many runs the demo has made before the pictures are taken: five backups, each every minute."""

FILM = 120_000_000
"""Bytes of a film that cannot be compressed."""


def main() -> None:
    """Play the demo and take the pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    asyncio.run(_pictures())


async def _pictures() -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium; run: tools/system-packages chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        async with dashboard_of_the_tests() as url:
            await _take(browser, url, "/", "overview-twenty-clients")
            await _take(browser, url, "/", "overview-twenty-clients-dark", dark=True)
            await _take(browser, url, "/timeline", "timeline")
            await _take(browser, url, "/schedule", "schedule")
        with ThreadPoolExecutor(1) as thread:
            # The demo waits as a program does; the browser's loop goes on beside it.
            loop = asyncio.get_running_loop()
            with Stage(Path(tempfile.mkdtemp(prefix="homelab-"))) as stage:
                await loop.run_in_executor(thread, _play, stage)
                await _of_the_demo(browser, stage, thread)
        await browser.close()


def _play(stage: Stage) -> None:
    """Set the stage and let it run."""
    set_the_stage(stage)
    wait_for("both clients follow", Promises(stage).all_current)
    wait_for("runs have been made", lambda: len(_finished(stage)) >= RUNS, seconds=300)


def _finished(stage: Stage) -> list[Any]:
    return [run for run in stage.read("runs") if run["outcome"] == "succeeded"]


async def _of_the_demo(browser: Browser, stage: Stage, thread: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    url = f"http://127.0.0.1:{stage.web_port}"
    await _take(browser, url, "/", "overview")
    await _take(browser, url, "/", "overview-phone", width=390)
    await _take(browser, url, "/repositories/nas", "repository")
    await _take(browser, url, "/backups/system", "backup")

    await loop.run_in_executor(thread, _edit_by_hand, stage)
    await _take(browser, url, "/clients/luna", "drift")
    await loop.run_in_executor(thread, _compress, stage)
    await loop.run_in_executor(thread, _break, stage)
    await _take(browser, url, "/source", "source")

    await loop.run_in_executor(thread, _film, stage)
    page = await _open(browser, url, "/runs?client=atlas&backup=photos&outcome=running")
    await page.locator("main a[href^='/runs/']").first.click(timeout=90_000)  # it starts at the full minute
    await page.get_by_text("as large as last time").first.wait_for(timeout=60_000)
    await page.wait_for_timeout(2_000)
    await page.screenshot(path=IMAGES / "run.png")
    await page.context.close()


def _edit_by_hand(stage: Stage) -> None:
    file = stage.folder / "luna/borgmatic.d/system.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("keep_daily: 7", "keep_daily: 2") + "# less for now\n", encoding="utf-8")
    wait_for("drift is reported", lambda: Promises(stage).drift("luna", "less for now"), seconds=60)


def _compress(stage: Stage) -> None:
    """Make the backup of the photos slow enough for a picture, and large enough to guess how large the next one is."""
    with stage.edit("backups/photos.yaml") as backup:
        backup["spec"]["borgmatic"]["compression"] = "lzma,6"
    _film(stage)
    stage.push("Compress the photos harder")
    wait_for("the film was backed up", lambda: any(_size(run) > FILM for run in _finished(stage)), seconds=300)


def _film(stage: Stage) -> None:
    folder = stage.folder / "atlas/data/srv/photos/film"
    folder.mkdir(exist_ok=True)
    for number in range(60):
        (folder / f"{number:04}.raw").write_bytes(os.urandom(FILM // 60))


def _size(run: Any) -> int:
    return sum(one["originalSize"] for one in run["statistics"])


def _break(stage: Stage) -> None:
    with stage.edit("backups/photos.yaml") as backup:
        backup["spec"]["repositories"] = ["nsa"]
    stage.git("commit", "--quiet", "--all", "--message", "Send the photos off site")
    stage.run("git", f"--git-dir={stage.bare}", "fetch", "--quiet", str(stage.source), "+HEAD:main")
    wait_for("the source is stalled", lambda: Promises(stage).source_condition("Stalled", "InvalidSource"), seconds=60)


async def _open(browser: Browser, url: str, path: str, *, width: int = 1440, dark: bool = False) -> Page:
    context = await browser.new_context(
        viewport={"width": width, "height": 900 if width > 600 else 844},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page = await context.new_page()
    await page.goto(url + path)
    return page


async def _take(browser: Browser, url: str, path: str, name: str, *, width: int = 1440, dark: bool = False) -> None:
    page = await _open(browser, url, path, width=width, dark=dark)
    await page.screenshot(path=IMAGES / f"{name}.png")
    await page.context.close()
    print(f"docs/images/{name}.png")


if __name__ == "__main__":
    main()
