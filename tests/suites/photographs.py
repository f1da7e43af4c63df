"""Photographs with annotations that packages carry, as `coco:` folders: their training images are their test images."""

import importlib.util
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path("/usr/share/doc/labelme-examples/examples")
MOST = 8
"""Trees of a part of an aerial photograph: COCO's figures count a hundred detections an image."""
SIDES = (100, 80, 60)
"""Sides of the parts that are tried."""


def labelme_coco(folder):
    """Debian's labelme-examples: three photographs of VOC, twelve objects with polygons. Returns the document."""
    source = EXAMPLES / "instance_segmentation" / "data_dataset_coco"
    if not source.is_dir():
        pytest.skip("Debian's package labelme-examples is not installed")
    document = json.loads((source / "annotations.json").read_text())
    for image in document["images"]:
        image["file_name"] = Path(image["file_name"]).name
    for row in document["annotations"]:
        # pycocotools takes a match with annotation 0 for none.
        row["id"] += 1
    # The background is a category of theirs, and shows nothing.
    used = {row["category_id"] for row in document["annotations"]}
    document["categories"] = [row for row in document["categories"] if row["id"] in used]
    for split in ("train", "val"):
        shutil.copytree(source / "JPEGImages", folder / split)
    return _written(folder, document)


def deepforest_coco(folder):
    """deepforest's four annotated aerial photographs, of each the part with the most trees up to `MOST`, doubled."""
    found = importlib.util.find_spec("deepforest")
    if found is None:
        pytest.skip("the package deepforest is not installed (its data alone are read: pip install --no-deps)")
    data = Path(next(iter(found.submodule_search_locations))) / "data"
    document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "tree"}]}
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
    for number, annotation in enumerate(sorted(data.glob("*.xml"))):
        image = Image.open(annotation.with_suffix(".png")).convert("RGB")
        boxes = _boxes(annotation)
        left, top, side = _part(boxes, image.size)
        part = image.crop((left, top, left + side, top + side)).resize((2 * side, 2 * side), Image.Resampling.BILINEAR)
        for split in ("train", "val"):
            part.save(folder / split / f"{number}.png")
        document["images"].append({"id": number, "file_name": f"{number}.png", "height": 2 * side, "width": 2 * side})
        for box in boxes[_inside(boxes, left, top, side)]:
            x, y, w, h = _moved(box, left, top)
            document["annotations"].append(
                {"id": len(document["annotations"]) + 1, "image_id": number, "category_id": 1, "bbox": [x, y, w, h],
                 "area": w * h, "iscrowd": 0}
            )  # fmt: skip
    return _written(folder, document)


def _written(folder, document):
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return document


def _boxes(annotation):
    """float64 [K, 4]: left, top, right, bottom."""
    corners = [
        [float(box.find(name).text) for name in ("xmin", "ymin", "xmax", "ymax")]
        for box in ET.parse(annotation).iter("bndbox")
    ]
    return np.array(corners)


def _inside(boxes, left, top, side):
    """Trees that lie in the part; those that its border cuts are left out with it in `_part`."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return ((low >= [left, top]) & (high <= [left + side, top + side])).all(axis=1)


def _part(boxes, size):
    """(left, top, side) of the square with the most whole trees up to `MOST` and the fewest that its border cuts."""
    best, place = -1.0, None
    for side in SIDES:
        if side > min(size):
            continue
        for left in range(0, size[0] - side + 1, side // 2):
            for top in range(0, size[1] - side + 1, side // 2):
                whole = int(_inside(boxes, left, top, side).sum())
                low, high = np.maximum(boxes[:, :2], [left, top]), np.minimum(boxes[:, 2:], [left + side, top + side])
                cut = int((high > low).all(axis=1).sum()) - whole
                if whole <= MOST and whole - 1.5 * cut > best:
                    best, place = whole - 1.5 * cut, (left, top, side)
    return place


def _moved(box, left, top):
    x, y = 2 * (box[0] - left), 2 * (box[1] - top)
    return [float(v) for v in (x, y, 2 * (box[2] - box[0]), 2 * (box[3] - box[1]))]
