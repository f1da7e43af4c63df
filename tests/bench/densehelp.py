"""Small detection and segmentation sets on disk: coloured shapes, each class a colour."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
IDS = {"red": 3, "green": 7, "blue": 90}
"""Category numbers with gaps, as COCO's have."""


def shapes(n, seed=0, size=(64, 80), most=3, least=16):
    """[(image [H, W, 3] uint8, [(class name, left, top, width, height)])]: rectangles that do not overlap."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        image = rng.integers(90, 130, (*size, 3)).astype(np.uint8)
        boxes = []
        for _ in range(rng.integers(1, most + 1)):
            for _ in range(50):
                w, h = rng.integers(least, least * 2, 2)
                x, y = rng.integers(0, size[1] - w), rng.integers(0, size[0] - h)
                if all(x + w < a or a + c < x or y + h < b or b + d < y for _, a, b, c, d in boxes):
                    name = list(COLOURS)[rng.integers(3)]
                    image[y : y + h, x : x + w] = COLOURS[name]
                    boxes.append((name, int(x), int(y), int(w), int(h)))
                    break
        made.append((image, boxes))
    return made


def write_coco(root, n=(4, 3), *, published=False, **more):
    """A `coco:` folder; every object has its polygon. Returns the two documents."""
    documents = []
    for split, count, seed in zip(("train", "val"), n, (0, 1), strict=True):
        split = split + "2017" * published
        (root / split).mkdir(parents=True, exist_ok=True)
        document = {"images": [], "annotations": [], "categories": [{"id": i, "name": c} for c, i in IDS.items()]}
        for index, (image, boxes) in enumerate(shapes(count, seed, **more)):
            Image.fromarray(image).save(root / split / f"{index}.png")
            height, width = image.shape[:2]
            number = 10 * index + 5
            document["images"].append({"id": number, "file_name": f"{index}.png", "height": height, "width": width})
            for name, x, y, w, h in boxes:
                document["annotations"].append(
                    {
                        "id": len(document["annotations"]) + 1, "image_id": number, "category_id": IDS[name],
                        "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )  # fmt: skip
        write_document(root, split, document)
        documents.append(document)
    return documents


def write_document(root, split, document):
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def write_voc(root, n=(4, 3)):
    """A `voc:` year folder."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, count, seed in zip(("train", "val"), n, (0, 1), strict=True):
        names = []
        for index, (image, boxes) in enumerate(shapes(count, seed)):
            names.append(f"{split}{index}")
            Image.fromarray(image).save(root / "JPEGImages" / f"{names[-1]}.png")
            write_voc_annotation(root, names[-1], image.shape[:2], boxes)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")


def write_voc_annotation(root, name, size, boxes, difficult=0):
    objects = "".join(
        f"<object><name>{c}</name><difficult>{difficult}</difficult><part><name>head</name><bndbox><xmin>1</xmin>"
        f"<ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for c, x, y, w, h in boxes
    )
    (root / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{objects}</annotation>"
    )


def write_segfolder(root, n=(4, 3), **more):
    """A `segfolder:` with classes.txt: background, red, green, blue; a rim of 255 around each shape."""
    for split, count, seed in zip(("train", "val"), n, (0, 1), strict=True):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for index, (image, boxes) in enumerate(shapes(count, seed, **more)):
            mask = np.zeros(image.shape[:2], dtype=np.uint8)
            for name, x, y, w, h in boxes:
                mask[y : y + h, x : x + w] = 255
                mask[y + 1 : y + h - 1, x + 1 : x + w - 1] = 1 + list(COLOURS).index(name)
            Image.fromarray(image).save(root / "images" / split / f"{index}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{index}.png")
    (root / "classes.txt").write_text("background\nred\ngreen\nblue\n")


def by_pycocotools(truth, detections, kind):
    """COCO's first six figures in percent (-100: no objects) by its own code; ``kind`` is bbox or segm."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = truth
        objects.createIndex()
        # With a bbox beside the mask, loadRes would take the box's area for small, medium and large.
        rows = [{k: v for k, v in row.items() if kind == "bbox" or k != "bbox"} for row in detections]
        evaluation = COCOeval(objects, objects.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * v for v in evaluation.stats[:6].tolist()]


def assert_shared(both, alone):
    """Two processes trained as one: the same plan but for their number, and losses alike within what draws differ."""
    mine, theirs = (record.measurements[0].details for record in (both, alone))
    assert mine["training"] == {**theirs["training"], "processes": 2, "images_at_once": 2}
    for a, b in zip(mine["curve"], theirs["curve"], strict=True):
        assert sum(v for k, v in a.items() if "loss" in k) == pytest.approx(
            sum(v for k, v in b.items() if "loss" in k), rel=0.15
        )
