"""Data sets by SPEC: a name, or ``kind:PATH``. Each row opens to `bench.dataset.Splits`.

A reader is a function ``open_x(rest) -> Splits``; ``rest`` is what follows the colon (empty for a name).
"""

from bench.registry import Entry

TABLE = {
    "demo": Entry("bench.data.demo_images:open_demo", "2 000 + 1 000 images of Fashion-MNIST, bundled"),
    "fashion-mnist": Entry("bench.data.idx:open_fashion_mnist", "60 000 + 10 000 images, 10 classes, IDX files"),
    "elpv": Entry(
        "bench.data.elpv:open_elpv", "2 624 photos of solar cells, the package elpv-dataset or $BENCH_DATA/elpv"
    ),
    "imagefolder": Entry("bench.data.imagefolder:open_imagefolder", "a folder per class, in train/ and val/ or test/"),
    "torchvision": Entry("bench.data.torchvision_sets:open_torchvision", "a torchvision data set under $BENCH_DATA"),
    "hf": Entry("bench.data.hf:open_hf", "local Parquet or Arrow files, or a name in the local Hugging Face cache"),
    "text": Entry("bench.data.textfolder:open_text", "texts and labels: train and test as TSV, CSV, JSON or Parquet"),
    "glue": Entry("bench.data.glue:open_glue", "glue:TASK of the nine, in $BENCH_DATA/glue or glue:TASK@FOLDER"),
    "squad": Entry(
        "bench.data.squad:open_squad", "SQuAD 1.1: train and dev as JSON or Parquet; alone: $BENCH_DATA/squad"
    ),
    "webdataset": Entry("bench.data.webdataset:open_webdataset", "tar shards with images and labels"),
    "imagenet": Entry("bench.data.named:open_imagenet", "$BENCH_DATA/imagenet: train/ and val/, a folder per class"),
    "imagenet-v2": Entry(
        "bench.data.robustness:open_imagenet_v2", "$BENCH_DATA/imagenet-v2, matched frequency, beside imagenet"
    ),
    "imagenet-a": Entry(
        "bench.data.robustness:open_imagenet_a", "$BENCH_DATA/imagenet-a, 200 class folders, beside imagenet"
    ),
    "imagenet-r": Entry(
        "bench.data.robustness:open_imagenet_r", "$BENCH_DATA/imagenet-r, 200 class folders, beside imagenet"
    ),
    "imagenet-sketch": Entry(
        "bench.data.robustness:open_imagenet_sketch", "$BENCH_DATA/imagenet-sketch, beside imagenet"
    ),
    "imagenet-real": Entry(
        "bench.data.robustness:open_imagenet_real", "ImageNet's val with $BENCH_DATA/imagenet-real/real.json"
    ),
    "imagenet-c": Entry(
        "bench.data.robustness:open_imagenet_c",
        "imagenet-c:CORRUPTION-SEVERITY in $BENCH_DATA/imagenet-c, beside imagenet",
    ),
    "corrupted": Entry(
        "bench.data.corrupted:open_corrupted",
        "corrupted:KIND-SEVERITY,SPEC, the test images of any set corrupted by torchvision",
    ),
    "imagecorruptions": Entry(
        "bench.data.imagecorruptions:open_imagecorruptions",
        "imagecorruptions:KIND-SEVERITY,SPEC, the fifteen kinds of ImageNet-C made of any set, extra [corruptions]",
    ),
    "ood": Entry("bench.data.outside:open_outside", "ood:IN,OUT, the test images of another set joined as one class"),
    "cifar10": Entry("bench.data.named:open_cifar10", "$BENCH_DATA/cifar10, the published archive"),
    "cifar100": Entry("bench.data.named:open_cifar100", "$BENCH_DATA/cifar100, the published archive"),
    "stl10": Entry("bench.data.named:open_stl10", "$BENCH_DATA/stl10, the published archive"),
    "svhn": Entry("bench.data.named:open_svhn", "$BENCH_DATA/svhn, the published archive"),
    "mnist": Entry("bench.data.named:open_mnist", "$BENCH_DATA/mnist, the published archive"),
    "food101": Entry("bench.data.named:open_food101", "$BENCH_DATA/food101, the published archive"),
    "flowers102": Entry("bench.data.named:open_flowers102", "$BENCH_DATA/flowers102, the published archive"),
    "pets": Entry("bench.data.named:open_pets", "$BENCH_DATA/pets, the published archive"),
    "dtd": Entry("bench.data.named:open_dtd", "$BENCH_DATA/dtd, the published archive"),
    "aircraft": Entry("bench.data.named:open_aircraft", "$BENCH_DATA/aircraft, the published archive"),
    "cars": Entry("bench.data.named:open_cars", "$BENCH_DATA/cars, the published archive"),
    "eurosat": Entry("bench.data.named:open_eurosat", "$BENCH_DATA/eurosat, the published archive"),
    "gtsrb": Entry("bench.data.named:open_gtsrb", "$BENCH_DATA/gtsrb, the published archive"),
    "coco": Entry("bench.data.coco:open_coco", "boxes and masks in COCO's JSON; alone: $BENCH_DATA/coco"),
    "voc": Entry("bench.data.voc:open_voc", "boxes: a year folder of a VOCdevkit"),
    "voc07": Entry("bench.data.voc:open_voc07", "$BENCH_DATA/voc07: trainval of 2007 and 2012, test of 2007"),
    "segfolder": Entry("bench.data.segfolder:open_segfolder", "images/<split>/ and masks/<split>/ of class numbers"),
    "ade20k": Entry("bench.data.segfolder:open_ade20k", "ADE20K as published; alone: $BENCH_DATA/ade20k"),
    "cub": Entry("bench.data.listed:open_cub", "$BENCH_DATA/cub, the published archive"),
    "sun397": Entry("bench.data.listed:open_sun397", "$BENCH_DATA/sun397, the published archive, partition 1"),
    "caltech101": Entry("bench.data.listed:open_caltech101", "$BENCH_DATA/caltech101, 30 images a class learned from"),
    "birdsnap": Entry("bench.data.listed:open_birdsnap", "$BENCH_DATA/birdsnap, the lists and the images still there"),
    "tinyimagenet": Entry("bench.data.listed:open_tinyimagenet", "$BENCH_DATA/tinyimagenet, the published archive"),
    "inat18": Entry(
        "bench.data.listed:open_inat18", "$BENCH_DATA/inat18: train_val2018/, train2018.json, val2018.json"
    ),
    "voc07cls": Entry("bench.data.voc07cls:open_voc07cls", "VOC2007 classification: twenty labels an image"),
    "vtab1k": Entry(
        "bench.data.vtab:open_vtab1k", "vtab1k:TASK, 800 + 200 images by their lists in $BENCH_DATA/vtab-1k"
    ),
}
