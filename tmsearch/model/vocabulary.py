"""The token table at both ends of the decoder: what it makes of tokens, its loss, and its gradient, written in place.

In Whisper tiny the table is half of all weights. Left to autograd, every update makes and adds two copies of it as
gradients (80 MB each), one of them zeros but for a hundred rows; here both ends write into one that is kept.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import WhisperForConditionalGeneration


class TokenTable:
    """Input and output layer of a Whisper's decoder, outside of autograd; the two may share one table.

    Use `embed`, then `loss`, then, with the gradient that reached the embedded tokens, `learn`.
    """

    def __init__(self, model: WhisperForConditionalGeneration) -> None:
        self.inputs: torch.Tensor = model.model.decoder.embed_tokens.weight
        self.outputs: torch.Tensor = model.proj_out.weight
        self._kept: dict[int, torch.Tensor] = {}  # gradients by parameter; optimisers let go of theirs
        self._rooms: dict[str, torch.Tensor] = {}

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """[..., d_model] for ids [...]: a leaf, which collects the gradient for `learn`."""
        embedded = functional.embedding(ids, self.inputs.detach())
        return embedded.requires_grad_(self.inputs.requires_grad)

    @torch.no_grad()
    def loss(
        self, hidden: torch.Tensor, labels: torch.Tensor, tokens: int, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of `labels` [n] after `hidden` [n, d_model], over `tokens`; and its gradient at `hidden`.

        In nats; `tokens` is the number of labels in the whole batch, so that the shares of its micro-batches add up.
        `smoothing` is the mass spread evenly over the vocabulary (Szegedy et al. 2016, section 7). Adds to the
        gradient of the output table. Equal to functional.cross_entropy, label_smoothing included.
        """
        device, given = hidden.device.type, hidden.dtype
        if torch.is_autocast_enabled(device):
            hidden = hidden.to(torch.get_autocast_dtype(device))
        table = self.outputs.to(hidden.dtype)
        with torch.autocast(device, enabled=False):
            logits = torch.mm(hidden, table.t(), out=self._room("logits", len(hidden), len(table), hidden.dtype))
            shares = logits
            if logits.dtype != torch.float32:
                shares = self._room("shares", len(hidden), len(table), torch.float32).copy_(logits)
            right = shares.gather(1, labels[:, None])[:, 0]
            mean = shares.mean(-1) if smoothing else right
            # Softmax in the logits' own memory, scaled as the gradient is.
            highest = shares.amax(-1, keepdim=True)
            sums = shares.sub_(highest).exp_().sum(-1, keepdim=True)
            normalizer = (highest + sums.log())[:, 0]
            total = (normalizer - (1 - smoothing) * right - smoothing * mean).sum() / tokens
            # softmax - target
            wrong = shares.div_(sums * tokens)
            if smoothing:
                wrong.sub_(smoothing / wrong.shape[1] / tokens)
            wrong.scatter_add_(1, labels[:, None], wrong.new_full((len(labels), 1), (smoothing - 1) / tokens))
            if logits.dtype != wrong.dtype:
                wrong = logits.copy_(wrong)
            if self.outputs.requires_grad:
                self._add_product(self.outputs, wrong.t(), hidden)
            return total, (wrong @ table).to(given)

    @torch.no_grad()
    def add_gradient(self, ids: torch.Tensor, embedded: torch.Tensor) -> None:
        """Adds the gradient that reached `embedded` to the rows of the input table that `ids` name."""
        if embedded.grad is None:
            return
        if self.inputs.grad is None:
            self.inputs.grad = self._buffer(self.inputs).zero_()
        self.inputs.grad.index_add_(0, ids.flatten(), embedded.grad.flatten(0, -2))

    def _add_product(self, table: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
        """table.grad += left @ right, in one pass where the formats are the same."""
        fresh = table.grad is None
        if fresh:
            table.grad = self._buffer(table)
        assert table.grad is not None
        if left.dtype != table.grad.dtype:
            product = torch.mm(left, right, out=self._room("product", table.shape[0], table.shape[1], left.dtype))
            table.grad.copy_(product) if fresh else table.grad.add_(product)
        elif fresh:
            torch.mm(left, right, out=table.grad)
        else:
            table.grad.addmm_(left, right)

    def _buffer(self, table: torch.Tensor) -> torch.Tensor:
        return self._kept.setdefault(id(table), torch.empty_like(table, requires_grad=False))

    def _room(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """[rows, columns] in memory kept from update to update: in a CPU's fresh memory each page costs a fault."""
        kept = self._rooms.get(name)
        if kept is None or len(kept) < rows * columns or kept.dtype != dtype:
            kept = self._rooms[name] = torch.empty(rows * columns, dtype=dtype, device=self.outputs.device)
        return kept[: rows * columns].view(rows, columns)
