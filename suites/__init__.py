"""Suites: features (or a Backbone) -> Measurements. The protocol cards are in ``protocols/``."""

from bench.registry import Entry

TABLE = {
    "knn": Entry("suites.knn:KNN", "k nearest neighbours, weighted vote, exact search"),
    "linear": Entry("suites.linear:Linear", "linear probe on frozen features"),
}
