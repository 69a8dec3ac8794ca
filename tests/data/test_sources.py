import dataclasses

import numpy as np
import pytest
from made_up import FACE, Folder, annotation

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, SourceConfig
from mrcnn_tf.data.loader import SampleLoader
from mrcnn_tf.data.order import make_pools
from mrcnn_tf.data.pipeline import TrainingData, coco_dataset
from mrcnn_tf.data.sources import load_sources
from mrcnn_tf.datasets.read_coco import load_index

STILL = AugmentConfig(horizontal_flip=0.0)
RUNS = {"size": [20, 40], "counts": [100, 8, 12, 8, 672]}


@pytest.fixture
def others(tmp_path, faces):
    """Three datasets with `faces`' categories: 4, 3 and 2 images. Ids of images are used in several."""
    folders = [faces]
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        folders.append(Folder(tmp_path / name))
        folders[-1].categories = faces.categories
    for number in (1, 2, 3, 4):
        faces.add_image(number)
    faces.annotations = [annotation(1, 1, keypoints=FACE), annotation(2, 3, category_id=9), annotation(3, 4)]
    for number in (1, 2, 7):
        folders[1].add_image(number, 40, 20)
    folders[1].annotations = [
        annotation(1, 2, category_id=3, keypoints=[3, 4, 2, 9, 8, 1]),
        annotation(2, 7, segmentation=RUNS, bbox=[5, 0, 3, 12]),
        annotation(3, 1, segmentation=RUNS, bbox=[5, 0, 3, 12], iscrowd=1),
    ]
    for number in (8, 1):
        folders[2].add_image(number, 30, 40)
    folders[2].annotations = [annotation(1, 8, keypoints=FACE)]
    return folders


def several(folders, weights=(None, None, None), **settings):
    parts = [folder.config(**settings) for folder in folders]
    sources = [
        SourceConfig(part.annotations, part.images, weight=weight) for part, weight in zip(parts, weights, strict=True)
    ]
    return dataclasses.replace(parts[0], annotations="", images="", sources=sources)


def test_several_sources_are_the_same_as_each_after_the_other(others):
    config = several(others)
    index = load_sources(config).index
    assert index.image_ids.tolist() == [1, 2, 3, 4, 1, 2, 7, 8, 1]
    together = SampleLoader(index, config)
    alone = []
    for one in others:
        part = load_index(one.config())
        alone += [(SampleLoader(part, config), place) for place in range(part.image_ids.size)]
    samples = [together.load(number) for number in range(9)]
    assert sum(sample.masks.numpy().any() for sample in samples) == 7
    assert sum(sample.keypoints.numpy().any() for sample in samples) == 3
    for sample, (loader, place) in zip(samples, alone, strict=True):
        for value, other in zip(sample, loader.load(place), strict=True):
            assert value.dtype == other.dtype
            np.testing.assert_array_equal(value, other)


def test_every_image_of_several_sources_comes_once_in_order_without_training(others):
    dataset = coco_dataset(several(others, images_per_batch=5, masks=False), training=False)
    ids = [batch["image_id"].numpy().tolist() for batch in dataset]
    assert ids == [[1, 2, 3, 4, 1], [2, 7, 8, 1]] and len(dataset) == 2


def test_problems_of_all_sources_are_kept(others):
    others[0].annotations.append(annotation(9, 1, category_id=4))
    others[2].annotations.append(annotation(9, 1, bbox=[0, 0, 0, 0]))
    sources = load_sources(several(others))
    assert [problem.record for problem in sources.index.problems] == [9, 3, 2, 9]
    assert sources.starts == [0, 4, 7, 9]
    assert sources.name == f"{others[0].path}/a.json, {others[1].path}/a.json, {others[2].path}/a.json"


def test_categories_are_the_configs_or_the_first_sources(others):
    others[1].categories = [{"id": 3, "name": "stick", "keypoints": ["left", "right"]}]
    others[1].annotations = others[1].annotations[:1]
    index = load_sources(several(others[:2], (None, None))).index
    assert [category.id for category in index.categories] == [3, 7, 9]
    assert index.classes.tolist() == [2, 3, 2, 1] and index.category_ids.tolist() == [7, 9, 7, 3]
    chosen = [Category(9, "ball"), Category(3, "stick", ["left", "right"])]
    index = load_sources(several(others[:2], (None, None), categories=chosen)).index
    assert index.classes.tolist() == [1, 2]  # the faces are problems
    assert {problem.record for problem in index.problems} == {1, 3}
    others[1].categories[0]["name"] = "rod"
    with pytest.raises(UserError, match="Category 3 is 'rod' in .*b/a.json and 'stick' in .*a.json or the config"):
        load_sources(several(others[:2], (None, None)))


def test_weights_set_the_sources_shares_of_a_pass(others):
    config = several(others, (1.0, 1.0, 2.0), images_per_batch=3, augment=STILL, masks=False)
    data = TrainingData(config)
    assert data.images == 9 and data.steps_per_pass == 3
    # 9 in proportion to 1, 1 and 2 are 2.25, 2.25 and 4.5: the last one's remainder is largest.
    height = {30: 0, 20: 1, 40: 2}
    for _ in range(3):
        sizes = [size for batch in data.one_pass() for size in batch["original_size"][:, 0].numpy().tolist()]
        assert np.bincount([height[size] for size in sizes]).tolist() == [2, 2, 5]
    batches = list(data.stream().take(6))
    ids = np.concatenate([batch["image_id"] for batch in batches])
    sizes = np.concatenate([batch["original_size"][:, 0] for batch in batches])
    # Within two passes the four images of the first source come once each, and those of the last 5 times each.
    assert sorted(ids[sizes == 30].tolist()) == [1, 2, 3, 4]
    assert np.bincount(ids[sizes == 40]).tolist() == [0, 5, 0, 0, 0, 0, 0, 0, 5]
    tail = [batch["image_id"].numpy().tolist() for batch in data.stream(4).take(2)]
    assert tail == ids.reshape(6, 3)[4:].tolist()


def test_without_weights_each_image_comes_once(others):
    data = TrainingData(several(others, images_per_batch=3, augment=STILL, masks=False))
    seen = []
    for batch in data.one_pass():
        seen += zip(batch["image_id"].numpy(), batch["original_size"][:, 0].numpy(), strict=True)
    assert len(set(seen)) == 9
    assert make_pools(load_sources(several(others)), np.array([0, 5]), 2)[0].draws == 2


def test_images_that_arent_trained_on_belong_to_no_pool(others):
    sources = load_sources(several(others, (1, 1, 1)))
    drawn = make_pools(sources, np.array([1, 3, 4, 7, 8]), 2)
    assert [pool.images.tolist() for pool in drawn] == [[1, 3], [4], [7, 8]]
    assert [pool.draws for pool in drawn] == [2, 1, 1]  # of 4, the largest multiple of 2
    with pytest.raises(UserError, match="No image of .*b/a.json can be trained on, but it has a weight: remove it"):
        make_pools(sources, np.array([1, 3, 7]), 1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0, None, 2.0), "b/a.json has no weight, and other sources have: set it"),
        ((1.0, 0.0, 2.0), "The weight of .*b/a.json is 0.0: it must be more than 0"),
        ((1.0, -1.0, 2.0), "The weight of .*b/a.json is -1.0: it must be more than 0"),
        ((1.0, 2.0, float("nan")), "The weight of .*c/a.json is nan"),
        ((1.0, 1.0, 0.01), "The weight of .*c/a.json is 0.005 of all, which gives it none of a pass's 9 images: raise"),
    ],
)
def test_weights_that_cant_be_meant(others, weights, message):
    with pytest.raises(UserError, match=message):
        TrainingData(several(others, weights, masks=False))


def test_two_ways_to_name_the_data(others):
    config = several(others)
    with pytest.raises(UserError, match="has sources and also x.json: make that one of data"):
        load_sources(dataclasses.replace(config, annotations="x.json"))
    with pytest.raises(UserError, match="has both .*a.json and r-.: name one"):
        load_sources(dataclasses.replace(others[0].config(), records="r-*"))
