"""A network of ours as a Backbone."""

from __future__ import annotations

from torch import Tensor

from adapters.networks.network import Network
from bench.backbone import Backbone, checked, freeze, weight_digest
from bench.card import Card


class NetworkBackbone(Backbone):
    """See `adapters.networks.network.Network`. ``logits`` exist where the classifier was filled."""

    def __init__(self, network: Network, card: Card, *, classifier: bool = True) -> None:
        super().__init__()
        self.network = network
        self._dims = 5 if network.family == "video" else 4
        self._classifier = classifier and network.num_classes > 0
        dims = {"pooled": network.num_features, "avg": network.channels[-1]}
        if network.class_token:
            dims["cls"] = network.num_features
        if self._classifier:
            dims["logits"] = network.num_classes
        head = f"{network.head_name}."
        self.card = card.model_copy(
            update={
                "family": network.family,
                "dims": dims,
                "feature": network.feature,
                "strides": list(network.strides),
                "channels": list(network.channels),
                "parameters": sum(p.numel() for n, p in network.named_parameters() if not n.startswith(head)),
                "weight_digest": weight_digest(network.state_dict()),
            }
        )
        freeze(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        _, out = self.network.outputs(checked(images, dims=self._dims))
        if self._classifier:
            out["logits"] = self.network.get_submodule(self.network.head_name)(out["pooled"])
        return out

    def pyramid(self, images: Tensor) -> list[Tensor]:
        return self.network.stages(checked(images, dims=self._dims))[0]
