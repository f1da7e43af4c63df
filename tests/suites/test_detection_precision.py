"""Average precision against pycocotools, against known answers, and its intervals."""

import numpy as np
import pytest
from densehelp import by_pycocotools, write_coco

from bench import matched as curve
from bench.data.masks import encoded, mask_of
from bench.data.opening import open_data
from suites.detection import matching, precision


def noisy(n=25, seed=0, *, classes=3, masks=False):
    """(truth, detections) of objects of all sizes, crowds, ties of score and false alarms."""
    rng = np.random.default_rng(seed)
    truth = {
        "images": [{"id": 7 * i + 3, "height": 200, "width": 300} for i in range(n)],
        "categories": [{"id": 5 * c + 2, "name": str(c)} for c in range(classes)],
        "annotations": [],
    }
    detections = []
    for image in truth["images"]:
        for _ in range(rng.integers(0, 9)):
            size = np.exp(rng.uniform(1.5, 5, 2)).clip(4, 150)
            box = [*rng.uniform(0, 1, 2) * ([300, 200] - size), *size]
            category = int(rng.integers(classes) * 5 + 2)
            row = {
                "id": len(truth["annotations"]) + 1, "image_id": image["id"], "category_id": category, "bbox": box,
                "area": box[2] * box[3] * 0.9, "iscrowd": int(rng.random() < 0.1),
            }  # fmt: skip
            if masks:
                row["segmentation"] = encoded(painted(box))
                row["area"] = float(painted(box).sum())
            truth["annotations"].append(row)
            for _ in range(rng.integers(0, 3)):
                moved = np.array(box) + rng.normal(0, 0.06, 4) * [box[2], box[3], box[2], box[3]]
                moved[2:] = np.maximum(moved[2:], 2)
                wrong = rng.random() < 0.15
                detections.append(
                    {
                        "image_id": image["id"], "category_id": 2 if wrong else category, "bbox": moved.tolist(),
                        "score": float(np.round(rng.random(), 1)),
                    }
                )  # fmt: skip
                if masks:
                    detections[-1]["segmentation"] = encoded(painted(moved))
    return truth, detections


def painted(box):
    x, y, w, h = (round(float(v)) for v in box)
    mask = np.zeros((200, 300), dtype=bool)
    mask[max(y, 0) : y + max(h, 1), max(x, 0) : x + max(w, 1)] = True
    return mask


def named(stats):
    """COCO's figures by our names, without those that have no objects."""
    return {name: v for name, v in zip(precision.STATS, stats, strict=True) if v > -100}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_three_computations_agree(kind, seed):
    truth, detections = noisy(seed=seed, masks=kind == "segm")
    ours = precision.coco_precision(truth, detections, kind)
    assert ours == pytest.approx(named(by_pycocotools(truth, detections, kind)), abs=1e-6)
    assert ours == pytest.approx(precision.own_coco_precision(truth, detections, kind), abs=1e-6)
    assert 1 < ours["ap"] < 99


def test_more_than_a_hundred_detections_of_a_class_are_cut():
    truth, detections = noisy(n=3)
    first = truth["images"][0]["id"]
    rng = np.random.default_rng(1)
    detections += [
        {"image_id": first, "category_id": 2, "bbox": [*rng.uniform(0, 90, 2), 20, 20], "score": float(rng.random())}
        for _ in range(150)
    ]
    ours = precision.coco_precision(truth, detections)
    assert ours == pytest.approx(named(by_pycocotools(truth, detections, "bbox")), abs=1e-6)
    assert ours == pytest.approx(precision.own_coco_precision(truth, detections), abs=1e-6)


def perfect(truth, scores=None):
    rows = [row for row in truth["annotations"] if not row["iscrowd"]]
    scores = scores or [0.9] * len(rows)
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [
        {**{k: row[k] for k in keys if k in row}, "score": s} for row, s in zip(rows, scores, strict=True)
    ]  # fmt: skip


def test_the_truth_as_detections_scores_100_and_shuffled_boxes_near_0(tmp_path):
    write_coco(tmp_path, n=(3, 40))
    test = open_data(f"coco:{tmp_path}").test
    truth = precision.truth_of(test)
    for kind in ("bbox", "segm"):
        found = perfect(truth)
        for row in found:
            height, width = test.instances(0).size
            row["segmentation"] = encoded(mask_of(row["segmentation"], (height, width)))
        assert precision.coco_precision(truth, found, kind)["ap"] == pytest.approx(100)
        assert precision.voc_precision(truth, found)["ap50"] == pytest.approx(100)
        rng = np.random.default_rng(0)
        for row, other in zip(found, rng.permutation(len(found)), strict=True):
            row["image_id"] = truth["annotations"][int(other)]["image_id"]
        assert precision.coco_precision(truth, found, kind)["ap"] < 10


def test_no_detections_score_0_and_undefined_figures_are_left_out():
    truth, _ = noisy()
    large = [row for row in truth["annotations"] if row["area"] > 96**2]
    truth["annotations"] = large
    assert precision.coco_precision(truth, []) == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0, "ap_large": 0.0}
    found = precision.coco_precision(truth, perfect(truth))
    assert "ap_small" not in found
    assert found["ap_large"] == pytest.approx(100)
    truth["annotations"] = [{**large[0], "id": i, "image_id": row["id"]} for i, row in enumerate(truth["images"], 1)]
    assert precision.coco_intervals(truth, [], {"ap": 0.0}, replicates=50)["ap"] == (0.0, 0.0)


def test_order_of_images_and_rows_does_not_matter():
    truth, detections = noisy()
    rng = np.random.default_rng(0)
    # Distinct scores: equal ones rank by order, in every evaluator.
    detections = [{**row, "score": i / len(detections)} for i, row in enumerate(detections)]
    turned = {**truth, "images": [truth["images"][i] for i in rng.permutation(len(truth["images"]))]}
    other = [detections[i] for i in rng.permutation(len(detections))]
    assert precision.coco_precision(truth, detections) == pytest.approx(precision.coco_precision(turned, other))
    assert precision.own_coco_precision(truth, detections) == pytest.approx(precision.own_coco_precision(turned, other))


def repeat(truth, detections, weights):
    """The set in which image i stands weights[i] times."""
    images, annotations, found = [], [], []
    for row, times in zip(sorted(truth["images"], key=lambda r: r["id"]), weights.astype(int), strict=True):
        for _ in range(times):
            number = len(images) + 1
            images.append({**row, "id": number})
            mine = [a for a in truth["annotations"] if a["image_id"] == row["id"]]
            annotations += [{**a, "image_id": number, "id": len(annotations) + k + 1} for k, a in enumerate(mine)]
            found += [{**d, "image_id": number} for d in detections if d["image_id"] == row["id"]]
    return {**truth, "images": images, "annotations": annotations}, found


def test_a_replicate_is_the_evaluation_of_the_resampled_images():
    truth, detections = noisy(n=12, seed=4)
    # A repeated image's detections tie: the published loop reads them one by one, ours at once. Distinct scores keep
    # ties inside one image, where both read hits and misses of one kind together.
    detections = [{**row, "score": 0.05 + 0.9 * i / len(detections)} for i, row in enumerate(detections)]
    weights = curve.resampled(12, 4, seed=0)
    drawn = precision._drawn_coco(truth, detections, "bbox", weights)
    for index, row in enumerate(weights):
        direct = precision.coco_precision(*repeat(truth, detections, row))
        ours = {k: 100 * v[index] for k, v in drawn.items() if np.isfinite(v[index])}
        assert ours == pytest.approx(direct, abs=1e-6)


def test_intervals_hold_the_value_and_shrink_with_the_images():
    widths = []
    for n in (20, 160):
        truth, detections = noisy(n=n, seed=2)
        values = precision.coco_precision(truth, detections)
        found = precision.coco_intervals(truth, detections, values, replicates=200)
        for name, interval in found.items():
            # Few images have large objects: with too many replicates without one there is no interval.
            assert interval is None or interval[0] <= values[name] <= interval[1]
        widths.append(found["ap"][1] - found["ap"][0])
    assert widths[1] < 0.6 * widths[0]


def voc_truth(*objects, difficult=()):
    return {
        "images": [{"id": 1, "height": 100, "width": 100}, {"id": 2, "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i + 1, "image_id": image, "category_id": 1, "bbox": list(box), "area": box[2] * box[3],
             "difficult": int(i in difficult)}
            for i, (image, box) in enumerate(objects)
        ],
    }  # fmt: skip


def detection(image, box, score):
    return {"image_id": image, "category_id": 1, "bbox": list(box), "score": score}


def test_voc_known_answers():
    a, b = (1, (10, 10, 20, 20)), (2, (50, 50, 20, 20))
    far = (70, 0, 10, 10)
    both = voc_truth(a, b)
    # One of two found: precision 1 up to recall 0.5, which six of the eleven recalls reach.
    assert precision.voc_precision(both, [detection(*a, 0.9)])["ap50"] == pytest.approx(100 * 6 / 11)
    # A false alarm between the two hits: 1 up to recall 0.5, then 2/3.
    rows = [detection(*a, 0.9), detection(1, far, 0.8), detection(*b, 0.7)]
    assert precision.voc_precision(both, rows)["ap50"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)
    # A second detection of the same object is a miss.
    rows = [detection(*a, 0.9), detection(*a, 0.8), detection(*b, 0.7)]
    assert precision.voc_precision(both, rows)["ap50"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)
    # A difficult object neither counts nor harms.
    rows = [detection(*a, 0.9), detection(*b, 0.95)]
    assert precision.voc_precision(voc_truth(a, b, difficult=(1,)), rows)["ap50"] == pytest.approx(100)
    assert precision.voc_precision(voc_truth(a, b, difficult=(1,)), [detection(*b, 0.9)])["ap50"] == 0
    # So with a crowd.
    crowded = voc_truth(a, b)
    crowded["annotations"][1]["iscrowd"] = 1
    assert precision.voc_precision(crowded, [detection(*b, 0.9)])["ap50"] == 0
    assert precision.voc_precision(crowded, [detection(*a, 0.9), detection(*b, 0.95)])["ap50"] == pytest.approx(100)
    # IoU exactly at the threshold is not over it; 0.6 is over .5 and .55 (and .6 by rounding alone).
    half = (1, (10, 10, 20, 10))
    assert precision.voc_precision(voc_truth(a), [detection(*half, 0.9)])["ap50"] == 0
    found = precision.voc_precision(voc_truth(a), [detection(1, (10, 10, 20, 16), 0.9)])
    assert (found["ap50"], found["ap75"], found["ap"]) == pytest.approx((100, 100, 60))


def test_voc_reads_scores_to_three_decimals():
    a, far = (1, (10, 10, 20, 20)), (2, (70, 0, 10, 10))
    # 0.90004 and 0.90001 are one score: order decides, so the hit of the first image stays first either way.
    for scores in ((0.90004, 0.90001), (0.90001, 0.90004)):
        rows = [detection(*a, scores[0]), detection(*far, scores[1])]
        assert precision.voc_precision(voc_truth(a), rows)["ap50"] == pytest.approx(100)


def test_voc_intervals_hold_the_value():
    truth, detections = noisy(n=30)
    truth["annotations"] = [{**row, "difficult": row["iscrowd"]} for row in truth["annotations"]]
    values = precision.voc_precision(truth, detections)
    found = precision.voc_intervals(truth, detections, values, replicates=200)
    assert set(values) == {"ap", "ap50", "ap75"}
    for name, (low, high) in found.items():
        assert low <= values[name] <= high
        assert high > low


def test_overlap_of_boxes():
    boxes = np.array([[0, 0, 10, 10.0], [5, 0, 10, 10], [20, 20, 1, 1]])
    assert matching.overlaps(boxes[:1], boxes).ravel().tolist() == pytest.approx([1, 1 / 3, 0])
    assert matching.overlaps(np.zeros((1, 4)), np.zeros((1, 4))).item() == 0
