"""Suites: features (or a Backbone) -> Measurements. The protocol cards are in ``protocols/``."""

from bench.registry import Entry

TABLE = {
    "knn": Entry("suites.knn:KNN", "k nearest neighbours, weighted vote, exact search"),
    "linear": Entry("suites.linear:Linear", "linear probe on frozen features"),
    "inat18": Entry("suites.inat18:INaturalist", "linear probe on iNaturalist 2018"),
    "fewshot": Entry("suites.fewshot:FewShot", "probes from 1 to 10 shots and from 1 % and 10 % of train"),
    "transfer": Entry(
        "suites.transfer:Transfer", "linear probes on the sets of the transfer tables, and their average"
    ),
    "voc07cls": Entry("suites.svm:VOC07Classification", "VOC2007 classification by linear SVMs, low-shot too"),
    "zeroshot": Entry("suites.zeroshot:ZeroShot", "classification by texts, for networks with a text tower (CLIP)"),
    "retrieval": Entry("suites.retrieval:Retrieval", "retrieval on labelled sets: mean average precision, recall@k"),
    "attentive": Entry("suites.attentive:AttentiveProbe", "one attention query over the last tokens, then linear"),
    "ridge": Entry("suites.ridge:Ridge", "ridge regression on one-hot targets, the cheap probe"),
    "ood": Entry("suites.ood:OutOfDistribution", "out-of-distribution detection: AUROC and FPR95 of four scores"),
    "robust": Entry("suites.robust:Robust", "ImageNet-V2, -A, -R, -Sketch, -ReaL and -C: accuracy, calibration, mCE"),
    "quality": Entry(
        "suites.quality:Quality", "label-free quality: RankMe, alpha-ReQ, NESum, uniformity, LiDAR, alignment"
    ),
    "finetune": Entry("suites.finetune:FineTune", "a copy trained end to end by a published recipe, its top-1"),
    "glue": Entry("suites.glue:GLUE", "a text encoder fine-tuned on GLUE's tasks: their metrics and the average"),
    "squad": Entry("suites.squad:SQuAD", "a text encoder fine-tuned on SQuAD 1.1: exact match and F1"),
    "cost": Entry("suites.cost:Cost", "parameters, FLOPs, latency, throughput and memory of a forward pass"),
    "agreement": Entry("suites.agreement:Agreement", "whether a student predicts what its teacher predicts"),
    "compression": Entry("suites.compression:Compression", "accuracy kept, size, FLOPs and time saved by a student"),
    "similarity": Entry("suites.similarity:Similarity", "how alike student and teacher represent the same samples"),
    "attention": Entry(
        "suites.attention:Attention", "where student and teacher look: class token's attention, last block"
    ),
    "gradcam": Entry("suites.gradcam:GradCAMAgreement", "where student and teacher find a class: Grad-CAM, last map"),
    "layers": Entry("suites.layer_map:LayerMap", "every layer of the student against every layer of its teacher"),
    "logits": Entry("suites.logit_suite:LogitStructure", "class structure of the logits, student against teacher"),
    "ade20k": Entry("suites.ade20k:ADE20K", "semantic segmentation: a linear head on frozen maps, or UperNet"),
    "coco": Entry("suites.detecting:COCO", "detection and instance segmentation: Mask and Faster R-CNN"),
    "voc07": Entry("suites.detecting:VOC07", "detection: Faster R-CNN, VOC2007's 11-point average precision"),
}
