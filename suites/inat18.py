"""iNaturalist 2018 by a linear probe: the recipes that were published for it, as a suite of its own."""

from __future__ import annotations

from suites.linear import Linear


class INaturalist(Linear):
    """Top-1 of 8 142 species; published numbers of fine-tuned networks are no numbers of this suite."""

    name = "inat18"
    default = "inat18/dinov2@1"
