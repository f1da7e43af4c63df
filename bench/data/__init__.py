"""Data sets by SPEC: a name, or ``kind:PATH``. Each row opens to `bench.dataset.Splits`.

A reader is a function ``open_x(rest) -> Splits``; ``rest`` is what follows the colon (empty for a name).
"""

from bench.registry import Entry

TABLE = {
    "demo": Entry("bench.data.demo_images:open_demo", "2 000 + 1 000 images of Fashion-MNIST, bundled"),
    "fashion-mnist": Entry("bench.data.idx:open_fashion_mnist", "60 000 + 10 000 images, 10 classes, IDX files"),
    "imagefolder": Entry("bench.data.imagefolder:open_imagefolder", "a folder per class, in train/ and val/ or test/"),
    "torchvision": Entry("bench.data.torchvision_sets:open_torchvision", "a torchvision data set under $BENCH_DATA"),
    "hf": Entry("bench.data.hf:open_hf", "local Parquet or Arrow files, or a name in the local Hugging Face cache"),
    "webdataset": Entry("bench.data.webdataset:open_webdataset", "tar shards with images and labels"),
}
