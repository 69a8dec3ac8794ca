"""A report on segments as a reader uses it, in a real browser."""

import dataclasses
import json
import pathlib

import pytest
import tensorflow as tf
from panoptic_by_hand import Answering, config, write
from test_report_in_browser import click, count, see, text

from mrcnn_tf.evaluation import evaluate_model
from mrcnn_tf.explain.inspection.inspect_data import inspect_data

HOSTILE = "</script><img src=x onerror=window.hacked=1>\" ' & 写真"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("panoptic"))


@pytest.fixture(scope="module")
def make(data, tmp_path_factory):
    """A function of `Inspection` arguments that writes a report."""

    def report(data=data, **more):
        out = tmp_path_factory.mktemp("report") / "report.html"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MRCNN_TF_CACHE", str(out.parent))
            ids = [{"image_id": tf.constant([1, 2], tf.int64)}]
            patch.setattr(evaluate_model, "coco_dataset", lambda config, training: ids)
            inspect_data(data, out, progress=False, **more)
        return out

    return report


@pytest.fixture(scope="module")
def report(make):
    return make(model=Answering())


def cells(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(r => [...r.children].map(c => c.textContent))"
    return browser.execute_script(script, f"{selector} tbody tr")


def listed(browser):
    script = "return [...document.querySelectorAll('#regions .card h3')].map(h => h.textContent)"
    return browser.execute_script(script)


def drawn(browser, file, side, what=""):
    place = {"2.png": 0, "1.png": 1}[file]
    view = 1 if side == "truth" else 2
    return count(browser, f"#regions [data-place='{place}'] .view:nth-child({view}) .region.{side}{what}")


def test_tables_and_pictures_say_what_was_counted_by_hand(open_page, report):
    browser = open_page(report)
    see(browser, "#regions .card")
    assert cells(browser, "#panoptic .scroll:nth-of-type(2)")[0] == ["All", "0.492", "0.700", "0.542", "4"]
    rows = {row[0]: row[1:] for row in cells(browser, "#panoptic .scroll:last-of-type")}
    assert rows["sky"] == ["stuff", "0.500", "1.000", "0.500", "1", "1", "1"]
    assert rows["dog"] == ["thing", "0.000", "0.000", "0.000", "0", "0", "1"]
    assert [row[:2] for row in cells(browser, "#pixels")] == [["things", "0.167"], ["sky", "0.750"], ["grass", "0.500"]]
    assert listed(browser) == ["2.png", "1.png"]
    line = "2 images: 5 segments, 3 matched, 2 missed; 2 false"
    assert text(browser, "#regions .counts") == line
    assert text(browser, "#regions .card p") == "10 × 8, PQ 0.000. 2 segments: 0 matched, 2 missed; 2 false"
    assert [drawn(browser, "2.png", side, ".wrong") for side in ("truth", "found")] == [2, 2]
    assert [drawn(browser, "1.png", side, ".wrong") for side in ("truth", "found")] == [0, 0]
    assert [drawn(browser, "1.png", side) for side in ("truth", "found")] == [3, 3]
    fills = "return [...document.querySelectorAll(arguments[0])].map(p => p.getAttribute('fill'))"
    sides = [
        browser.execute_script(fills, f"#regions [data-place='1'] .view:nth-child({n}) .region .fill") for n in (1, 2)
    ]
    assert sides[0] == sides[1] and len(set(sides[0])) == 3
    names = "return [...document.querySelectorAll(\"#regions [data-place='0'] text\")].map(t => t.textContent)"
    assert sorted(browser.execute_script(names)) == ["✕ dog", "✕ grass", "✕ sky", "✕ sky"]
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [report.resolve().as_uri()]


def test_what_the_reader_chooses_is_drawn_and_counted(open_page, report):
    browser = open_page(report)
    click(browser, "#region-filter option[value='missed']")
    assert listed(browser) == ["2.png"]
    click(browser, "#region-filter option[value='all']")
    click(browser, "#region-order option[value='name']")
    assert listed(browser) == ["1.png", "2.png"]
    click(browser, "#regions [data-class='2']")  # the sky
    assert text(browser, "#regions .counts") == "2 images: 3 segments, 2 matched, 1 missed; 1 false"
    see(browser, "#regions .card")
    assert [drawn(browser, "2.png", side) for side in ("truth", "found")] == [1, 1]
    click(browser, "#show-fills")
    assert count(browser, "#regions .region .fill") == 0 < count(browser, "#regions .region .border")
    click(browser, "#show-names")
    assert count(browser, "#regions .overlay text") == 0
    click(browser, "#regions [data-place='0'] .frame")
    rows = cells(browser, "dialog[open]")
    assert ["dog", "50 %", "false", "grass, IoU 1.00"] in rows and ["grass", "38 %", "missed", "dog, IoU 1.00"] in rows


def test_a_dataset_by_itself_has_its_segments_and_pixels(open_page, make, data):
    browser = open_page(make())
    see(browser, "#dataset .bars")
    chart = text(browser, "#dataset .bars")
    assert "sky50 % in 2 images" in chart and "all things6.3 % in 1 image" in chart and "no class6.3 %" in chart
    assert count(browser, "#panoptic, #pixels, #images") == 0
    see(browser, "#regions .card")
    assert text(browser, "#regions .counts") == "2 images: 5 segments"
    labels = config(pathlib.Path(data.images).parent, semantic_maps=str(pathlib.Path(data.images).parent / "labels"))
    browser = open_page(make(labels, model=Answering(instances=False)))
    see(browser, "#regions .card")
    assert text(browser, "#regions .card p") == "10 × 8, mean IoU 0.250" and count(browser, "#dataset .tile") == 4
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_phone_and_hostile_names_do_no_harm(open_page, make, data, tmp_path):
    records = json.loads(pathlib.Path(data.panoptic).read_text())
    for category in records["categories"]:
        category["name"] = f"{HOSTILE} {category['id']}"
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(records))
    out = make(dataclasses.replace(data, panoptic=str(path), categories=[], stuff=[]), model=Answering())
    browser = open_page(out, 360, 740, "dark")
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    see(browser, "#regions .card")
    assert browser.execute_script("return window.hacked ?? null") is None and count(browser, "script") == 2
    assert HOSTILE in text(browser, "#panoptic") and HOSTILE in text(browser, "#regions .class-list")
    widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1] == 360
