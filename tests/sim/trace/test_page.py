"""The page that replays a run, in a real browser."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright

from firmware_model.calibration.plan import uniform_plan
from paro.config import Config
from paro.config.formats import CODE_BITS
from paro.config.registers import STATES
from sim.cosim.accelerator import AcceleratorTarget
from sim.cosim.core import CoreTarget
from sim.cosim.cosim import Heads, cosim
from sim.cosim.run import REPLAY_FILE, Setup
from sim.cycles.memory import Memory
from sim.trace.page import write_page
from sim.trace.trace import BLOCK, BlockMap, Trace, Track
from sim.verify.heads import random_capture, random_codes
from tests.sim.inputs import TINY

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CLUSTER = Config(rows=4, cols=4, block=16, head_dim=32, cores=2, query_rows=2, key_slots=4)


@pytest.fixture(scope="module")
def browser():
    programs = [found for name in PROGRAMS if (found := shutil.which(name))]
    assert programs, "Chromium is missing: make chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=programs[0])
        yield running
        running.close()


@pytest.fixture
def open_page(browser):
    """Open a page; in the end it has complained of nothing and asked the network for nothing."""
    pages, complaints, requests = [], [], []

    def open_file(path: Path, settings: str = ""):
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="light")
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri() + settings)
        page.wait_for_selector("html[data-ready=yes]")
        pages.append(page)
        return page

    yield open_file
    for page in pages:
        page.close()
    assert pages
    assert not complaints
    assert not [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]


@pytest.fixture(scope="module")
def runs(build_dir, tmp_path_factory):
    """Folders, reports and codes of two heads on the core, and on a cluster with a memory."""
    capture = random_capture(100, TINY.head_dim, 1)
    codes = torch.stack([random_codes(7, bits, seed) for seed, bits in enumerate((3.0, 4.8))])
    plan = dataclasses.replace(uniform_plan(capture, (0, 1), 16), codes=codes)

    def run(config, target):
        folder = tmp_path_factory.mktemp(target.name)
        setup = Setup("verilator", folder, build_dir, trace=True)
        report = cosim(Heads(capture, plan, (0, 1), config), target, setup)
        assert report.passed
        assert (report.trace, report.replay) == ("trace.json", "replay.html")
        return folder, report

    return {
        "core": run(TINY, CoreTarget()),
        "cluster": run(CLUSTER, AcceleratorTarget(Memory((5, 20)))),
        "codes": codes.numpy(),
    }


def shown_counts(page) -> dict[str, dict[str, int]]:
    """Cycles of each stage in each state, as the page shows them."""
    return page.evaluate(
        """() => {
            const rows = [...document.querySelectorAll("#tracks tr[data-track]")];
            const count = (cell) => +cell.textContent.replaceAll(",", "");
            const cells = (row) => [...row.querySelectorAll("td[data-state]")];
            return Object.fromEntries(rows.map((row) => [row.dataset.track,
                Object.fromEntries(cells(row).map((cell) => [cell.dataset.state, count(cell)]))]));
        }"""
    )


def shown_widths(page, what: str) -> list[int]:
    """Blocks of each width, as the page shows them."""
    cells = [
        page.text_content(f'#widths [data-bits="{bits}"] [data-what={what}]') for bits in CODE_BITS
    ]
    return [int(cell.replace(",", "")) for cell in cells]


def cycle(page) -> int:
    return int(page.get_attribute("html", "data-cycle"))


def test_it_plays_and_ends_with_the_counts_of_the_report(open_page, runs) -> None:
    folder, report = runs["core"]
    page = open_page(folder / REPLAY_FILE)
    page.wait_for_function("+document.documentElement.dataset.cycle > 50")
    page.click("#play")
    assert page.get_attribute("html", "data-playing") == "false"
    assert cycle(page) < report.cycles
    page.keyboard.press("End")
    assert cycle(page) == report.cycles
    assert shown_counts(page) == report.stages
    for head, codes in enumerate(runs["codes"]):
        page.select_option("#job", label=f"head {head}")
        wanted = np.bincount(codes.ravel(), minlength=4).tolist()
        assert shown_widths(page, "done") == shown_widths(page, "all") == wanted
    page.keyboard.press("Home")
    assert shown_counts(page) == {name: dict.fromkeys(STATES, 0) for name in report.stages}
    assert shown_widths(page, "done") == [0] * 4
    page.click("#play")
    page.wait_for_function("document.documentElement.dataset.playing == 'true'")


def test_each_core_and_the_memory_port(open_page, runs) -> None:
    folder, report = runs["cluster"]
    page = open_page(folder / REPLAY_FILE, f"#cycle={report.cycles}&theme=dark")
    assert page.get_attribute("html", "data-theme") == "dark"
    for core, stages in enumerate(report.cores):
        page.select_option("#core", label=f"core {core}")
        counts = shown_counts(page)
        ports = {name: counts.pop(name)["busy"] for name in ("read", "write")}
        assert counts == stages
        assert ports == {"read": report.memory.read.beats, "write": report.memory.write.beats}


def test_a_block_under_the_pointer_and_the_one_in_the_array(open_page, runs) -> None:
    folder, report = runs["core"]
    codes = runs["codes"][0]
    row, column = np.argwhere(codes == 3)[0].tolist()
    page = open_page(folder / REPLAY_FILE, "#cycle=0")
    area = page.locator("#map").bounding_box()
    side = area["width"] / codes.shape[1]

    def hint(row, column):
        page.mouse.move(area["x"] + (column + 0.5) * side, area["y"] + (row + 0.5) * side)
        return page.text_content("#tip-box")

    assert hint(row, column).startswith(f"row {row}, column {column}: 8 bit\nasked for in cycle")
    skipped = np.argwhere(codes == 0)[0].tolist()
    assert "0 bit: skipped" in hint(*skipped)
    # The next turn is QK of the first block of the map.
    page.click("#next")
    first = int(np.flatnonzero(codes[0])[0])
    bits = CODE_BITS[codes[0, first]]
    assert page.text_content('[data-line="qk"]') == f"QK  row 0, column {first}, {bits} bit"
    assert page.get_attribute('[data-line="qk"]', "class") == "state on"
    begun = cycle(page)
    page.click("#next")
    assert cycle(page) > begun > 0
    page.click("#back")
    assert cycle(page) == begun
    page.fill("#scrub", str(report.cycles // 2))
    assert cycle(page) == report.cycles // 2
    page.keyboard.press("t")
    assert page.get_attribute("html", "data-theme") == "dark"
    page.hover("#tracks tr[data-track=softmax] canvas")
    assert "Softmax unit" in page.text_content("#tip-box")


def test_a_long_run_stays_light_and_keeps_its_totals(open_page, runs, tmp_path, seed) -> None:
    """Tracks of more spans than the page holds have their shares of equal parts."""
    generator = np.random.default_rng(seed)
    _, report = runs["core"]
    tracks = []
    for name in report.stages:
        lengths = generator.integers(1, 9, 400_000)
        states = np.arange(len(lengths)) % 4
        starts = np.concatenate([[0], lengths.cumsum()[:-1]])
        tracks.append(Track(0, name, starts, states, int(lengths.sum())))
    end = min(track.end for track in tracks)
    tracks = [
        Track(
            0, track.name, track.starts[track.starts < end], track.states[track.starts < end], end
        )
        for track in tracks
    ]
    block = (0, 0, 0, 0, 0, 2, 10, 20, 40, 60, 80)
    trace = Trace(end, tracks, [BlockMap(False, 0, 1, 1, 1)], np.array([block], BLOCK))
    path = tmp_path / REPLAY_FILE
    write_page(path, trace, ["head"], report.to_dict())
    assert path.stat().st_size < 2_000_000
    page = open_page(path, f"#cycle={end}")
    assert shown_counts(page) == {track.name: track.counts() for track in tracks}
    page.fill("#scrub", str(end // 2))
    for track in tracks:
        shown = list(shown_counts(page)[track.name].values())
        (wanted,) = track.counts_until(np.array([end // 2])).T
        # The middle may lie within a part.
        assert np.abs(np.array(shown) - wanted).max() < 100
