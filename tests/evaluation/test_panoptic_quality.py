"""PQ, SQ and RQ: cases done by hand, a slow loop, the Model Garden and hotcoco."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from made_up_segments import CATEGORIES, STUFF, THINGS, scene, write_maps
from rich.console import Console

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.panoptic_metrics import PanopticQuality
from mrcnn_tf.evaluation.results import PANOPTIC_METRICS

CAT, DOG, SKY = Category(3, "cat"), Category(7, "dog"), Category(92, "sky")
COUNTS = ("tp", "fp", "fn")
SEEDS = range(8)


def listed(**categories):
    """Segments: `s1=CAT` is number 1, a cat; `c1=CAT` a crowd of cats."""
    return [
        {"id": int(name[1:]), "category_id": category.id, "iscrowd": int(name[0] == "c")}
        for name, category in categories.items()
    ]


def pixels(rows):
    """A map from a text such as "1122 1100", a digit for each pixel."""
    return np.array([[int(digit) for digit in row] for row in rows.split()])


def results_of(*images, things=(CAT, DOG), stuff=(SKY,)):
    """The results of images, each (truth, its segments, found, its segments)."""
    quality = PanopticQuality(things, stuff)
    for image_id, (truth, truth_segments, found, found_segments) in enumerate(images):
        quality.add(image_id, pixels(truth), truth_segments, pixels(found), found_segments)
    return quality.results()


def row_of(results, category):
    return next(row for row in results.per_class if row["id"] == category.id)


def counts_of(results, category):
    return tuple(row_of(results, category)[name] for name in COUNTS)


def test_the_same_segments_score_one_whatever_their_ids():
    truth, found = listed(s1=CAT, s2=CAT, s3=SKY), listed(s8=CAT, s7=SKY, s5=CAT)
    results = results_of(("1122 1133", truth, "8855 8877", found))
    assert counts_of(results, CAT) == (2, 0, 0) and counts_of(results, SKY) == (1, 0, 0)
    assert results.all == {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0, "n": 2}
    assert (results.things["n"], results.stuff["n"], results.images) == (1, 1, 1)


def test_a_match_needs_more_than_half_of_the_union():
    truth = listed(s1=CAT, s2=SKY)
    half = results_of(("111222", truth, "011100", listed(s1=CAT)))  # 2 pixels of 4
    assert counts_of(half, CAT) == (0, 1, 1) and row_of(half, CAT)["SQ"] == 0
    more = results_of(("11111222", truth, "01111110", listed(s1=CAT)))  # 4 pixels of 7
    assert counts_of(more, CAT) == (1, 0, 0) and row_of(more, CAT)["SQ"] == 4 / 7


def test_void_pixels_of_the_truth_are_no_part_of_a_union():
    results = results_of(("111000", listed(s1=CAT), "111111", listed(s1=CAT)))
    assert counts_of(results, CAT) == (1, 0, 0) and row_of(results, CAT)["SQ"] == 1


def test_a_prediction_is_ignored_if_more_than_half_of_it_is_void():
    found = listed(s1=CAT)
    assert counts_of(results_of(("2200", listed(s2=SKY), "1111", found)), CAT) == (0, 1, 0)
    assert counts_of(results_of(("2000", listed(s2=SKY), "1111", found)), CAT) == (0, 0, 0)


def test_a_crowd_is_neither_found_nor_missed_and_excuses_its_own_category():
    results = results_of(("1111", listed(c1=CAT), "1111", listed(s1=CAT)))
    assert counts_of(results, CAT) == (0, 0, 0) and row_of(results, CAT)["PQ"] is None
    assert counts_of(results_of(("1111", listed(c1=CAT), "0000", [])), CAT) == (0, 0, 0)
    assert counts_of(results_of(("1111", listed(c1=CAT), "1111", listed(s1=DOG))), DOG) == (0, 1, 0)


def test_a_crowd_stays_in_the_union_unlike_void():
    # IoU 2 of 5: no match, but three fifths of the prediction lie in the crowd.
    results = results_of(("11222", listed(s1=CAT, c2=CAT), "11111", listed(s1=CAT)))
    assert counts_of(results, CAT) == (0, 0, 1)


def test_void_and_all_crowds_of_a_category_excuse_together():
    found = listed(s1=CAT)
    assert counts_of(results_of(("110022", listed(c1=CAT, s2=SKY), "111111", found)), CAT) == (0, 0, 0)
    assert counts_of(results_of(("112233", listed(c1=CAT, c2=CAT, s3=SKY), "111111", found)), CAT) == (0, 0, 0)
    assert counts_of(results_of(("112233", listed(c1=CAT, c2=DOG, s3=SKY), "111111", found)), CAT) == (0, 1, 0)


@pytest.mark.parametrize(
    ("truth", "found", "counts", "iou"),
    [
        ("1111111111", "1111112222", (1, 1, 0), 0.6),
        ("1111112222", "1111111111", (1, 0, 1), 0.6),
        ("1111111111", "1111122222", (0, 2, 1), 0.0),
        ("1111122222", "1111111111", (0, 1, 2), 0.0),
    ],
    ids=["split", "joined", "split_in_half", "joined_of_halves"],
)
def test_one_segment_over_several(truth, found, counts, iou):
    sides = [listed(s1=CAT, s2=CAT) if "2" in rows else listed(s1=CAT) for rows in (truth, found)]
    results = results_of((truth, sides[0], found, sides[1]))
    assert counts_of(results, CAT) == counts and row_of(results, CAT)["SQ"] == iou


def test_another_category_is_both_missed_and_wrong():
    results = results_of(("1111", listed(s1=CAT), "1111", listed(s1=DOG)))
    assert counts_of(results, CAT) == (0, 0, 1) and counts_of(results, DOG) == (0, 1, 0)
    assert results.all == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n": 2}


def test_nothing_to_find_and_nothing_found():
    results = results_of(("00 00", [], "00 00", []))
    assert results.images == 1 and results.all == {"PQ": None, "SQ": None, "RQ": None, "n": 0}
    # All of the prediction is void, so it is nothing wrong either.
    assert results_of(("00 00", [], "11 11", listed(s1=CAT))).all["n"] == 0


def test_a_void_prediction_misses_everything():
    results = results_of(("1122", listed(s1=CAT, s2=SKY), "0000", []))
    assert counts_of(results, CAT) == (0, 0, 1) == counts_of(results, SKY)


def test_means_are_over_the_categories_that_occur():
    truth, found = listed(s1=CAT, s3=DOG, s4=SKY), listed(s1=CAT, s2=CAT, s4=SKY)
    image = ("1111111111 3333333333 4444444444", truth, "1111112222 0000000000 4444444444", found)
    results = results_of(image, stuff=(SKY, Category(200, "grass")))
    assert [row_of(results, CAT)[name] for name in PANOPTIC_METRICS] == pytest.approx([0.4, 0.6, 2 / 3])
    assert [row_of(results, DOG)[name] for name in PANOPTIC_METRICS] == [0, 0, 0]
    assert [results.all[name] for name in PANOPTIC_METRICS] == pytest.approx([1.4 / 3, 1.6 / 3, 5 / 9])
    assert [results.things[name] for name in PANOPTIC_METRICS] == pytest.approx([0.2, 0.3, 1 / 3])
    assert [results.stuff[name] for name in PANOPTIC_METRICS] == [1, 1, 1]
    assert (results.all["n"], results.things["n"], results.stuff["n"]) == (3, 2, 1)
    assert [row["isthing"] for row in results.per_class] == [True, True, False, False]
    assert results.per_class[-1]["PQ"] is None  # grass


def test_images_add_up():
    found = ("1111", listed(s1=CAT), "1111", listed(s1=CAT))
    missed = ("1111", listed(s1=CAT), "0000", [])
    results = results_of(found, missed)
    assert counts_of(results, CAT) == (1, 0, 1) and row_of(results, CAT)["PQ"] == 2 / 3 and results.images == 2


def test_a_category_that_is_not_evaluated_is_no_void():
    image = ("1222", listed(s1=CAT, s2=SKY), "1111", listed(s1=CAT))
    alone = results_of(image, things=(CAT,), stuff=())
    assert counts_of(alone, CAT) == (0, 1, 1) == counts_of(results_of(image), CAT)
    assert [row["name"] for row in alone.per_class] == ["cat"]


@pytest.mark.parametrize("kinds", [("int32", "int32"), ("uint32", "int64"), ("uint64", "int16")], ids="-".join)
def test_ids_of_any_integer_type(kinds):
    large = 256**3 - 1
    truth, found = np.zeros([2, 3], kinds[0]), np.zeros([2, 3], kinds[1])
    truth[0], found[0] = large, 300
    quality = PanopticQuality([CAT], [])
    quality.add(np.int64(5), truth, [{"id": large, "category_id": 3}], found, [{"id": 300, "category_id": 3}])
    assert quality.results().all["PQ"] == 1


@pytest.mark.parametrize(
    ("found", "found_segments", "sentence"),
    [
        ("11 11", listed(s1=CAT), r"image 0 are a map of \[2, 2\] pixels but .* ground truth \[1, 4\]"),
        ("1155", listed(s1=CAT), "of segment 5 in the prediction for image 0, .* doesn't list"),
        ("1111", listed(s1=CAT, s6=SKY), "no pixel of segment 6 in the prediction for image 0"),
        ("1111", listed(s1=Category(9, "kite")), "Segment 1 predicted in image 0 is of category 9"),
    ],
    ids=["size", "not_listed", "no_pixel", "category"],
)
def test_a_prediction_that_does_not_fit(found, found_segments, sentence):
    with pytest.raises(UserError, match=sentence):
        results_of(("1111", listed(s1=CAT), found, found_segments))


def test_a_truth_that_does_not_fit():
    with pytest.raises(UserError, match="of segment 2 in the ground truth of image 0"):
        results_of(("1122", listed(s1=CAT), "1111", listed(s1=CAT)))


@pytest.fixture(scope="module")
def scenes():
    """Random scenes, in which everything happens that the figures depend on."""
    made = [scene(np.random.default_rng(seed)) for seed in SEEDS]
    results = quality_of(made).results()
    assert all(row["tp"] and row["fp"] and row["fn"] for row in results.per_class)
    assert any(segment["iscrowd"] for _, segments, _, _ in made for segment in segments)
    return made


@pytest.fixture(scope="module")
def crowdless():
    return [scene(np.random.default_rng(seed), crowds=False) for seed in SEEDS]


def quality_of(scenes):
    quality = PanopticQuality(THINGS, STUFF)
    for image_id, one in enumerate(scenes):
        quality.add(image_id, *one)
    return quality


def slow_counts(category_id, truth_map, truth_segments, found_map, found_segments):
    """[sum of IoUs, tp, fp, fn] of a category by the paper's words: sets of pixels, void taken out of the union."""
    places = [(y, x) for y in range(truth_map.shape[0]) for x in range(truth_map.shape[1])]
    void = {place for place in places if truth_map[place] == 0}

    def sets(segment_map, segments, crowd):
        of_category = [s["id"] for s in segments if s["category_id"] == category_id and s.get("iscrowd", 0) == crowd]
        return [{place for place in places if segment_map[place] == segment_id} for segment_id in of_category]

    truths, crowds = sets(truth_map, truth_segments, 0), sets(truth_map, truth_segments, 1)
    counts = [0.0, 0, 0, len(truths)]
    for prediction in sets(found_map, found_segments, 0):
        ious = [len(prediction & truth) / max(len((prediction | truth) - void), 1) for truth in truths]
        if max(ious, default=0) > 0.5:
            counts = [counts[0] + max(ious), counts[1] + 1, counts[2], counts[3] - 1]
        elif len(prediction & void.union(*crowds)) / len(prediction) <= 0.5:
            counts[2] += 1
    return counts


def test_random_scenes_against_a_slow_loop(scenes):
    results = quality_of(scenes).results()
    for row in results.per_class:
        iou, tp, fp, fn = np.sum([slow_counts(row["id"], *one) for one in scenes], axis=0)
        assert [row[name] for name in COUNTS] == [tp, fp, fn]
        expected = [iou / (tp + 0.5 * fp + 0.5 * fn), iou / tp, tp / (tp + 0.5 * fp + 0.5 * fn)]
        assert [row[name] for name in PANOPTIC_METRICS] == pytest.approx(expected, rel=1e-12)


def test_shares_of_several_processes_are_the_whole(scenes):
    whole = quality_of(scenes).results()
    shares = [PanopticQuality(THINGS, STUFF) for _ in range(3)]
    for image_id, one in enumerate(scenes):
        shares[image_id % 3].add(image_id, *one)
    shares[1].add(0, *scenes[0])  # as a last batch that is filled up
    merged = PanopticQuality(THINGS, STUFF)
    for share in reversed(shares):
        merged.counts |= share.counts
    assert merged.results() == whole


# The Model Garden brings Keras 2, which the package must work without: in a process of its own. Its instances of the
# ignored category are crowds of no category in particular, unlike COCO's, so that the scenes here have no crowds.
GARDEN = """
import json, sys
import numpy as np
from official.vision.evaluation.panoptic_quality import PanopticQuality

arrays = np.load(sys.argv[1])
quality = PanopticQuality(num_categories=6, ignored_label=0, max_instances_per_category=256, offset=256**3)
for truth, found in zip(arrays["truth"], arrays["found"]):
    sides = [{"category_mask": side[0], "instance_mask": side[1]} for side in (truth, found)]
    quality.compare_and_accumulate(*sides)
result = quality.result(is_thing=np.array([False, True, True, True, False, False]))
counts = [quality.tp_per_class, quality.fp_per_class, quality.fn_per_class]
figures = {name: np.asarray(value).tolist() for name, value in result.items()}
print(json.dumps(figures | {"counts": np.stack(counts, 1).tolist()}))
"""


def test_random_scenes_against_the_model_garden(crowdless, tmp_path):
    pytest.importorskip("official")

    def masks(segment_map, segments):
        """uint16 [2, H, W]: categories from 1, 0 for void, and numbers of instances."""
        categories, instances = np.zeros((2, *segment_map.shape), np.uint16)
        order = [category.id for category in CATEGORIES]
        for number, segment in enumerate(segments, 1):
            inside = segment_map == segment["id"]
            categories[inside], instances[inside] = order.index(segment["category_id"]) + 1, number
        return np.stack([categories, instances])

    truth, found = [masks(*one[:2]) for one in crowdless], [masks(*one[2:]) for one in crowdless]
    np.savez(tmp_path / "maps.npz", truth=truth, found=found)
    command = [sys.executable, "-c", GARDEN, str(tmp_path / "maps.npz")]
    garden = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    results = quality_of(crowdless).results()
    for place, row in enumerate(results.per_class, 1):
        assert [row[name] for name in COUNTS] == garden["counts"][place]
        theirs = [garden[f"{name.lower()}_per_class"][place] for name in PANOPTIC_METRICS]
        assert [row[name] for name in PANOPTIC_METRICS] == pytest.approx(theirs, rel=1e-12)
    for title, ours in (("All", results.all), ("Things", results.things), ("Stuff", results.stuff)):
        theirs = [garden[f"{title}_{name.lower()}"] for name in PANOPTIC_METRICS]
        assert [ours[name] for name in PANOPTIC_METRICS] == pytest.approx(theirs, rel=1e-12)
        assert ours["n"] == garden[f"{title}_num_categories"]


def test_random_scenes_with_crowds_against_hotcoco(scenes, tmp_path):
    panoptic = pytest.importorskip("hotcoco.panoptic")
    truth_json, truth_folder = write_maps(tmp_path, "truth", {i: one[:2] for i, one in enumerate(scenes)})
    found_json, found_folder = write_maps(tmp_path, "found", {i: one[2:] for i, one in enumerate(scenes)})
    theirs = panoptic.PanopticEval(truth_json, found_json, gt_folder=truth_folder, pred_folder=found_folder)
    theirs.evaluate()
    theirs = theirs.results()
    results = quality_of(scenes).results()
    for row in results.per_class:
        expected = theirs["per_class"][row["id"]]
        assert [row[name] for name in COUNTS] == [expected[name] for name in COUNTS]
        metrics = [expected[name.lower()] for name in PANOPTIC_METRICS]
        assert [row[name] for name in PANOPTIC_METRICS] == pytest.approx(metrics, rel=1e-12)
    for title, ours in (("All", results.all), ("Things", results.things), ("Stuff", results.stuff)):
        expected = [theirs[title][name] for name in ("pq", "sq", "rq", "n")]
        assert [ours[name] for name in (*PANOPTIC_METRICS, "n")] == pytest.approx(expected, rel=1e-12)


def test_the_table_shows_what_the_json_says():
    truth, found = listed(s1=CAT, s4=SKY), listed(s1=CAT, s2=CAT)
    quality = PanopticQuality((CAT, DOG), (SKY,))
    quality.add(1, pixels("1111111111 4444444444"), truth, pixels("1111112222 0000000000"), found)
    results = quality.results([f"image {number} is left out." for number in range(12)])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(results.table())
    text = console.export_text()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert cells == [
        ["All", "0.200", "0.300", "0.333", "2"],
        ["Things", "0.400", "0.600", "0.667", "1"],
        ["Stuff", "0.000", "0.000", "0.000", "1"],
        ["cat", "0.400", "0.600", "0.667", "1", "1", "0"],
        ["dog", "–", "–", "–", "0", "0", "0"],
        ["sky (stuff)", "0.000", "0.000", "0.000", "0", "0", "1"],
    ]
    assert "image 9 is left out." in text and "image 10 is" not in text and "and 2 more" in text
    read = json.loads(json.dumps(results.to_json()))
    assert read["things"] == results.things and read["per_class"] == results.per_class and len(read["skipped"]) == 12
