"""A text encoder as a Backbone."""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import Tensor, nn

from adapters.text.classifier import Classifier
from adapters.text.pooling import Pooling, mean
from adapters.text.tokens import Tokens, Window, cut
from bench.backbone import Backbone, freeze, weight_digest
from bench.card import Card, Transform
from bench.errors import BenchError


class TextBackbone(Backbone):
    """``network``: a Hugging Face encoder (BERT and its kin). Its samples are `bench.dataset.Text`.

    ``features`` takes what `preprocess` makes, [B, 3, L] (`adapters.text.tokens.Tokens`), and gives ``pooled`` by the
    folder's pooling, ``cls`` the first token of the last layer, ``avg`` the mean of its tokens, and ``pooler`` (the
    first token through the dense layer and tanh that BERT was trained with) and ``logits`` where the checkpoint brings
    them.
    """

    modality = "text"

    def __init__(
        self, network: nn.Module, tokens: Tokens, pooling: Pooling, card: Card, classifier: Classifier | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.classifier = classifier
        self.tokens = tokens
        self.pooling = pooling
        width = int(cast(Any, network).config.hidden_size)
        dims = {"pooled": pooling.width(width), "cls": width, "avg": width}
        if self.pooler is not None:
            dims["pooler"] = width
        if classifier is not None:
            dims["logits"] = cast(nn.Linear, list(classifier.modules())[-1]).out_features
        named = {name: value for name, value in network.state_dict().items() if value.numel()}
        if classifier is not None:
            named |= {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
        named |= {f"pooling.{name}": value for name, value in pooling.state_dict().items()}
        self.card = card.model_copy(
            update={
                "dims": dims,
                "feature": pooling.describe(),
                "transform": _transform(tokens),
                "weight_digest": weight_digest(named),
                "parameters": sum(p.numel() for part in (network, pooling) for p in part.parameters()),
            }
        )
        freeze(self)

    def shortened(self, longest: int) -> TextBackbone:
        """The same network with texts cut at ``longest`` tokens, or at fewer where it has no more positions."""
        other = copy.copy(self)
        other.tokens = copy.deepcopy(self.tokens)
        return at_length(other, min(longest, positions(cast(Any, self.network).config)))

    @property
    def pooler(self) -> nn.Module | None:
        """The dense layer of the first token, where the checkpoint brings one."""
        return getattr(self.network, "pooler", None)

    @property
    def depth(self) -> int:
        return int(cast(Any, self.network).config.num_hidden_layers)

    def preprocess(self, image: Any) -> Tensor:
        """A `bench.dataset.Text` as float32 [3, L]."""
        return self.tokens(image)

    def windows(self, question: str, context: str, *, longest: int, stride: int, query: int) -> list[Window]:
        """See `adapters.text.tokens.Tokens.windows`; no longer than the network has positions for."""
        longest = min(longest, positions(cast(Any, self.network).config))
        return self.tokens.windows(question, context, longest=longest, stride=stride, query=query)

    def last_tokens(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """([B, L, D] of the last layer, mask [B, L]); L is the batch's longest text."""
        numbers, mask, parts = cut(batch)
        return cast(Tensor, self._run(numbers, mask, parts).last_hidden_state), mask

    def features(self, images: Tensor) -> dict[str, Tensor]:
        numbers, mask, parts = cut(images)
        output = self._run(numbers, mask, parts)
        hidden = output.last_hidden_state
        found = {"pooled": self.pooling(hidden, mask), "cls": hidden[:, 0], "avg": mean(hidden, mask)}
        if self.pooler is not None:
            found["pooler"] = output.pooler_output
        if self.classifier is not None:
            found["logits"] = self.classifier(output.pooler_output if self.classifier.pooled else hidden[:, 0])
        return found

    def blocks(self, images: Tensor, n: int = 4, norm: bool = True) -> list[tuple[Tensor, Tensor | None]]:
        """The last ``n`` layers; texts differ in length, so that each has one row [B, 1, D]: the mean of its tokens.

        These networks end every layer in its norm: ``norm`` changes nothing.
        """
        if not 1 <= n <= self.depth:
            raise BenchError(f"'{self.card.name}' has {self.depth} layers: {n} of them cannot be read")
        numbers, mask, parts = cut(images)
        layers = self._run(numbers, mask, parts, output_hidden_states=True).hidden_states[-n:]
        return [(mean(layer, mask).unsqueeze(1), layer[:, 0]) for layer in layers]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        raise BenchError(f"'{self.card.name}' ({self.card.architecture}) is a text encoder: it has no maps of an image")

    def _run(self, numbers: Tensor, mask: Tensor, parts: Tensor, **more: Any) -> Any:
        config: Any = cast(Any, self.network).config
        if numbers.shape[1] > positions(config):
            raise BenchError(
                f"'{self.card.name}' has positions for {positions(config)} tokens, not for {numbers.shape[1]}"
            )
        if getattr(config, "type_vocab_size", 0) > 1:
            more["token_type_ids"] = parts
        return self.network(input_ids=numbers, attention_mask=mask, **more)


def at_length(backbone: TextBackbone, longest: int) -> TextBackbone:
    """``backbone`` with texts cut at ``longest`` tokens. Raises `BenchError` beyond its positions."""
    most = positions(cast(Any, backbone.network).config)
    if longest > most:
        raise BenchError(f"'{backbone.card.name}' has positions for {most} tokens, not for {longest}")
    if longest != backbone.tokens.longest:
        backbone.tokens.at(longest)
        backbone.card = backbone.card.model_copy(update={"transform": _transform(backbone.tokens)})
    return backbone


def positions(config: Any) -> int:
    """Tokens that a network has positions for; RoBERTa's count from the padding's number."""
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "mpnet") else 0
    return int(config.max_position_embeddings) - int(offset)


def _transform(tokens: Tokens) -> Transform:
    return Transform(
        kind="text", resize=None, crop=tokens.longest, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0),
        custom=tokens.describe(),
    )  # fmt: skip
