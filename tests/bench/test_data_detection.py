"""`coco:` and `voc:`: what is read, what is refused."""

import numpy as np
import pytest
from densehelp import COLOURS, IDS, shapes, write_coco, write_document, write_voc, write_voc_annotation
from PIL import Image

from bench.data.masks import encoded, mask_of
from bench.data.opening import limited, open_data
from bench.errors import BenchError

ANNOTATION = {"id": 99, "image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 8], "area": 80, "iscrowd": 0}


@pytest.mark.parametrize("published", [False, True])
def test_coco_is_read_as_it_was_written(tmp_path, published):
    write_coco(tmp_path, published=published)
    train, val = open_data(f"coco:{tmp_path}")
    assert (train.split, val.split) == (("train2017", "val2017") if published else ("train", "val"))
    assert train.class_ids == (3, 7, 90)
    assert train.classes == ("red", "green", "blue")
    for index, (image, boxes) in enumerate(shapes(4, 0)):
        found = train.instances(index)
        assert found.boxes.tolist() == [list(map(float, box[1:])) for box in boxes]
        assert [train.classes[i] for i in found.labels] == [box[0] for box in boxes]
        assert np.array_equal(np.asarray(train.image(index)), image)
        assert train.image_id(index) == 10 * index + 5
        for segment, (_, x, y, w, h) in zip(found.segments, boxes, strict=True):
            mask = mask_of(segment, found.size)
            assert mask.sum() == w * h
            assert mask[y : y + h, x : x + w].all()
    assert train.masked
    assert np.array_equal(train.labels.sum(axis=1) > 0, [True] * 4)


def test_fingerprints_follow_content_alone(tmp_path):
    first, second = write_coco(tmp_path / "a"), write_coco(tmp_path / "b")
    a, b = (open_data(f"coco:{tmp_path / name}") for name in "ab")
    assert [s.fingerprint for s in a] == [s.fingerprint for s in b]
    assert first == second
    first[0]["annotations"][0]["bbox"][0] += 1
    first[0]["annotations"][0]["bbox"][2] -= 1
    write_document(tmp_path / "a", "train", first[0])
    changed = open_data(f"coco:{tmp_path / 'a'}")
    assert changed.train.fingerprint != b.train.fingerprint
    assert changed.test.fingerprint == b.test.fingerprint


def test_a_part_keeps_its_annotations(tmp_path):
    write_coco(tmp_path)
    train = open_data(f"coco:{tmp_path}").train
    part = limited(train, 2)
    assert [part.image_id(i) for i in range(2)] == [5, 25]
    assert part.instances(1) is train.instances(2)


def test_run_lengths_and_crowds(tmp_path):
    (document, _) = write_coco(tmp_path)
    mask = np.zeros((64, 80), dtype=bool)
    mask[3:9, 5:20] = True
    counts = [5 * 64 + 3, *([6, 58] * 15)[:-1], 64 * 60 + 55]
    rows = (("text", encoded(mask)), ("list", {"size": [64, 80], "counts": counts}))
    for number, (_, segmentation) in enumerate(rows, start=200):
        row = {**ANNOTATION, "id": number, "bbox": [5, 3, 15, 6], "area": 90, "iscrowd": 1}
        document["annotations"].append({**row, "segmentation": segmentation})
    write_document(tmp_path, "train", document)
    found = open_data(f"coco:{tmp_path}").train.instances(0)
    assert found.crowd.tolist()[-2:] == [True, True]
    for segment in found.segments[-2:]:
        assert np.array_equal(mask_of(segment, (64, 80)), mask)


def test_images_without_objects_belong_to_the_set(tmp_path):
    (document, _) = write_coco(tmp_path)
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] != 15]
    write_document(tmp_path, "train", document)
    train = open_data(f"coco:{tmp_path}").train
    assert len(train) == 4
    assert train.instances(1).boxes.shape == (0, 4)


def bad(**change):
    return lambda document: document["annotations"].append({**ANNOTATION, **change})


def repeated(document):
    document["images"].append(document["images"][0])


def nameless(document):
    document["images"][0]["file_name"] = "../secret.png"


def gone(document):
    document["images"][1]["file_name"] = "gone.png"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (bad(image_id=6), "annotation 99 is of image 6, which is not listed"),
        (bad(category_id=4), "annotation 99 is of category 4, which is not listed"),
        (bad(bbox=[70, 2, 20, 8]), r"annotation 99 has the box 70, 2, 20, 8 .* leaves its image of 80x64 pixels"),
        (bad(bbox=[1, 2, 0, 8]), r"1 of \d+ boxes have no area, first annotation 99"),
        (bad(bbox=[1, 2, float("nan"), 8]), "annotation 99 has a box that is not finite"),
        (bad(bbox=[1, 2, 3]), "annotation 99 has no bbox of four numbers"),
        (bad(segmentation={"size": [8, 8], "counts": "x"}), "run lengths of another size than its image"),
        (bad(segmentation=[[1, 2, "x"]]), "neither polygons nor run lengths"),
        (bad(area="much"), "has the area 'much'"),
        (bad(id=1), "two annotations have the id 1"),
        (repeated, "two images have the id 5"),
        (nameless, "leads out of the folder"),
        (gone, "lists gone.png, which is not in"),
        (lambda document: document.update(images=[]), "lists no images: the split is empty"),
        (lambda document: document.update(categories=[{"id": 3, "name": "rot"}]), "category 3 is 'rot' and 'red'"),
        (lambda document: document.pop("annotations"), "has no list 'annotations'"),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_sentence(tmp_path, change, sentence):
    (document, _) = write_coco(tmp_path)
    change(document)
    write_document(tmp_path, "train", document)
    with pytest.raises(BenchError, match=sentence) as refusal:
        open_data(f"coco:{tmp_path}")
    assert "\n" not in str(refusal.value)


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path):
    write_coco(tmp_path)
    Image.new("RGB", (10, 10)).save(tmp_path / "train" / "0.png")
    train = open_data(f"coco:{tmp_path}").train
    with pytest.raises(BenchError, match=r"0.png has 10x10 pixels, and its annotation says 80x64"):
        train.image(0)


def test_missing_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(BenchError, match="is not there"):
        open_data(f"coco:{tmp_path / 'no'}")
    with pytest.raises(BenchError, match="neither instances_train2017.json"):
        open_data(f"coco:{tmp_path}")
    write_coco(tmp_path)
    (tmp_path / "annotations" / "instances_val.json").unlink()
    with pytest.raises(BenchError, match="both splits are needed"):
        open_data(f"coco:{tmp_path}")
    (tmp_path / "annotations" / "instances_val.json").write_text("{")
    with pytest.raises(BenchError, match="is not JSON"):
        open_data(f"coco:{tmp_path}")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    for name in ("coco", "voc07", "ade20k"):
        with pytest.raises(BenchError, match=f"the data set '{name}' is not here .*data/{name}"):
            open_data(name)
    write_coco(tmp_path / "data" / "coco", published=True)
    assert open_data("coco").test.name == "coco"


def test_voc_is_read_with_its_first_pixel_at_one(tmp_path):
    write_voc(tmp_path / "year")
    train, _ = open_data(f"voc:{tmp_path / 'year'}")
    assert train.classes == tuple(sorted(COLOURS))
    assert not train.masked
    for index, (image, boxes) in enumerate(shapes(4, 0)):
        found = train.instances(index)
        assert found.boxes.tolist() == [list(map(float, box[1:])) for box in boxes]
        assert np.array_equal(np.asarray(train.image(index)), image)
    write_voc_annotation(tmp_path / "year", "train0", (64, 80), shapes(1, 0)[0][1], difficult=1)
    assert open_data(f"voc:{tmp_path / 'year'}").train.instances(0).difficult.all()


def test_voc_refusals(tmp_path):
    root = tmp_path / "year"
    write_voc(root)
    cases = [
        ((0, 0), [("red", 0, 0, 5, 5)], "leaves its image"),
        ((64, 80), [("red", 0, 0, 0, 5)], "have no area"),
        (("x", 80), [], "no annotation of VOC's form"),
    ]
    for size, boxes, sentence in cases:
        write_voc_annotation(root, "train0", size, boxes)
        with pytest.raises(BenchError, match=sentence):
            open_data(f"voc:{root}")
    (root / "Annotations" / "train0.xml").unlink()
    with pytest.raises(BenchError, match="the image train0 has no annotation"):
        open_data(f"voc:{root}")
    (root / "JPEGImages" / "train0.png").unlink()
    with pytest.raises(BenchError, match="names train0, which is not in"):
        open_data(f"voc:{root}")
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n")
    with pytest.raises(BenchError, match="the split is empty"):
        open_data(f"voc:{root}")


def test_voc07_learns_from_both_years_and_reports_on_2007(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    for year in ("VOC2007", "VOC2012"):
        write_voc(tmp_path / "voc07" / year)
        lists = tmp_path / "voc07" / year / "ImageSets" / "Main"
        (lists / "train.txt").rename(lists / "trainval.txt")
        (lists / "val.txt").rename(lists / "test.txt")
    train, test = open_data("voc07")
    assert (len(train), len(test)) == (8, 3)
    assert (train.split, test.split) == ("trainval", "test")
    assert len({train.image_id(i) for i in range(8)}) == 8
    assert set(IDS) == set(train.classes)
