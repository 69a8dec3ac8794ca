"""Labels in scripts that the default font lacks, by fonts drawn here, whatever is installed; and where tags go."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from mrcnn_tf.common.categories import Category
from mrcnn_tf.explain.diagnosis import figure
from mrcnn_tf.results import draw_text
from mrcnn_tf.results.detections import Detections

CAT = "\N{CJK UNIFIED IDEOGRAPH-732B}"


def square():
    pen = TTGlyphPen(None)
    for number, (x, y) in enumerate([(100, 0), (100, 700), (800, 700), (800, 0)]):
        pen.lineTo((x, y)) if number else pen.moveTo((x, y))
    pen.closePath()
    return pen.glyph()


def make_font(path, letters):
    """A font whose every letter is a black square."""
    names = [".notdef", *(f"u{ord(letter):04X}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf({name: square() for name in names})
    builder.setupHorizontalMetrics({name: (900, 100) for name in names})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def installed(monkeypatch):
    """A function that sets which fonts the machine has."""

    def install(*paths):
        draw_text._find_font.cache_clear()
        monkeypatch.setattr(draw_text, "_installed_fonts", lambda: list(paths))

    yield install
    draw_text._find_font.cache_clear()


def test_the_usual_font_where_it_is_enough(installed, capsys):
    installed("/nowhere.ttf")
    for text in ("", "cell 0.95", "Zelle groß", "клетка", "κύτταρο", "خلية"):
        assert draw_text.font_file(text).endswith("DejaVuSans.ttf")
    assert capsys.readouterr().err == ""


def test_a_font_of_the_machine_that_has_all_letters(installed, tmp_path, capsys):
    half = make_font(tmp_path / "half.ttf", CAT)
    whole = make_font(tmp_path / "whole.ttf", CAT + "0.9")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    installed(str(tmp_path / "broken.ttf"), half, whole)
    assert draw_text.font_file(f"{CAT} 0.9") == whole
    assert draw_text.font_file(CAT) == half  # the first that will do
    assert capsys.readouterr().err == ""


def test_no_font_has_it(installed, capsys):
    installed()
    assert draw_text.font_file(f"{CAT} 0.9").endswith("DejaVuSans.ttf")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"has the letters {CAT}, and" in said and "install" in said
    draw_text.font_file(f"{CAT} 0.9")
    assert capsys.readouterr().err == ""  # once is enough


def test_detections_are_labelled_with_it(installed, tmp_path):
    image = np.full((80, 120, 3), 90, np.uint8)
    drawn = []
    for paths in ((), (make_font(tmp_path / "whole.ttf", CAT + "0.95"),)):
        installed(*paths)
        found = Detections(
            boxes=np.array([[20, 30, 60, 70]], np.float32),
            scores=np.array([0.95], np.float32),
            classes=np.array([1], np.int32),
            mask_probabilities=None,
            keypoints=None,
            image_size=(80, 120),
            categories=[Category(1, CAT)],
        )
        drawn.append(np.asarray(found.draw(image)))
    assert drawn[0].shape == drawn[1].shape and (drawn[0] != drawn[1]).any()


def test_figures_are_labelled_with_it(installed, tmp_path):
    drawn = []
    for paths in ((), (make_font(tmp_path / "whole.ttf", CAT),)):
        installed(*paths)
        board, (axes,) = figure.make_panels(1, (40, 40))
        figure.draw_image(axes, np.full((40, 40, 3), 255, np.uint8), CAT * 12)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            drawn.append(np.asarray(figure.render(board)).astype(int))
        assert any("missing from font" in str(one.message) for one in caught) == (not paths)
    assert drawn[0].shape != drawn[1].shape or (drawn[0] != drawn[1]).any()


def test_a_tag_avoids_another_one():
    corners = np.array([[70.0, 90.0], [270.0, 90.0]])
    taken = draw_text.place_tag(corners, (60, 20), (400, 200), np.zeros([0, 4]))
    np.testing.assert_array_equal(taken, [70, 90, 130, 110])
    other = draw_text.place_tag(corners, (60, 20), (400, 200), taken[None])
    np.testing.assert_array_equal(other, [270, 90, 330, 110])
