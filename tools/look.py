"""Pictures of the dashboard's pages: `tools/look / /clients/web-3 --width 390 --dark --out build/look`.

Shows the seeded store of the tests, or with `--url` a dashboard that runs already. Full pages, in a real Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.async_api import async_playwright

from tests.web_readonly import seeded
from web_readonly.app import make_app, serving
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def main() -> None:
    """Take the pictures and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="paths of pages, such as / or /clients?state=drifted")
    parser.add_argument("--width", type=int, action="append", help="1440 unless told; may be given several times")
    parser.add_argument("--dark", action="store_true", help="the dark theme")
    parser.add_argument("--no-script", action="store_true", help="with JavaScript off")
    parser.add_argument("--fold", action="store_true", help="only what is seen without scrolling")
    parser.add_argument("--url", default="", help="a dashboard that runs; else the tests' seeded store is served")
    parser.add_argument("--out", type=Path, default=Path("build/look"), help="the folder to write to")
    arguments = parser.parse_args()
    asyncio.run(_look(arguments))


async def _look(arguments: argparse.Namespace) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    async with _dashboard(arguments.url) as url, async_playwright() as playwright:
        chromium = shutil.which("chromium")
        if chromium is None:
            sys.exit("tools/look: there is no chromium; run: tools/system-packages chromium")
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for width in arguments.width or [1440]:
            for path in arguments.paths:
                print(await _picture(browser, url, path, width=width, arguments=arguments))
        await browser.close()


async def _picture(browser: Browser, url: str, path: str, *, width: int, arguments: argparse.Namespace) -> Path:
    theme = "dark" if arguments.dark else "light"
    page = await browser.new_page(
        viewport={"width": width, "height": 900 if width > 600 else 844},
        color_scheme="dark" if arguments.dark else "light",
        java_script_enabled=not arguments.no_script,
        reduced_motion="reduce",
    )
    await page.goto(url + path)
    name = re.sub(r"[^A-Za-z0-9]+", "-", path).strip("-") or "overview"
    file: Path = arguments.out / f"{name}-{width}-{theme}.png"
    await page.screenshot(path=file, full_page=not arguments.fold)
    wide = await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    if wide:
        print(f"{path} at {width}: wider than the window", file=sys.stderr)
    await page.close()
    return file


@asynccontextmanager
async def _dashboard(url: str) -> AsyncIterator[str]:
    if url:
        yield url.rstrip("/")
        return
    async with dashboard_of_the_tests() as served:
        yield served


@asynccontextmanager
async def dashboard_of_the_tests() -> AsyncIterator[str]:
    """Serve the tests' seeded store, where it is always the same morning; yields the URL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        await seeded.seed(path)
        with closing(Reader(path)) as reader:
            async with serving(make_app(reader, now=lambda: seeded.NOW), host="127.0.0.1", port=0) as served:
                yield served


if __name__ == "__main__":
    main()
