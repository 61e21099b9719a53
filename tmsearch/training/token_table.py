"""The token table's hand-written loss and gradients: the decoder's input and output layer, outside of autograd.

Dimension words in shape comments: labels (tokens with a label, all clips), vocabulary.
"""

from __future__ import annotations

import logging

import torch
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from tmsearch.model.kernels import formulas
from tmsearch.model.kernels.fused import FusedKernels

_log = logging.getLogger(__name__)


class TokenTable:
    """The decoder's input and output layer, outside of autograd; the two may share one table.

    In Whisper tiny the table is half of all weights. Left to autograd, every update makes and adds two copies of it
    as gradients (80 MB each), one of them zeros but for a hundred rows; here both layers write into one that is
    reused. Call `embed`, then `loss`, then, with the gradient that reached the embedded tokens, `add_gradient`.
    """

    def __init__(self, model: WhisperForConditionalGeneration, kernels: FusedKernels | None = None) -> None:
        """`kernels`: those of a device that there is a compiler for; the loss is one of them, as ten passes are not."""
        self.inputs: torch.Tensor = model.model.decoder.embed_tokens.weight  # [vocabulary, d_model]
        self.outputs: torch.Tensor = model.proj_out.weight  # [vocabulary, d_model]
        self._gradients: dict[int, torch.Tensor] = {}  # by parameter's id; optimizers drop theirs
        self._scratch: dict[str, torch.Tensor] = {}
        self._is_compiled = kernels is not None
        self._product = kernels.cast_of(model.proj_out) if kernels is not None else None

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """[..., d_model] for ids [...]: a leaf, which collects the gradient for `add_gradient`."""
        embedded = functional.embedding(ids, self.inputs.detach())
        return embedded.requires_grad_(self.inputs.requires_grad)

    @torch.no_grad()
    def loss(
        self, hidden: torch.Tensor, labels: torch.Tensor, label_count: int, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy with label smoothing, equal to functional.cross_entropy; adds to the output table's gradient.

        Args:
            hidden: Decoder states that predict the labels, [labels, d_model].
            labels: Token ids, [labels].
            label_count: Labels in the whole batch, so that the shares of its micro-batches add up.
            smoothing: Probability mass spread evenly over the vocabulary (Szegedy et al. 2016, section 7).

        Returns:
            The batch loss's share of these labels in nats, [], and its gradient with respect to `hidden`.
        """
        device_type = hidden.device.type
        given_dtype = hidden.dtype
        if torch.is_autocast_enabled(device_type):
            hidden = hidden.to(torch.get_autocast_dtype(device_type))
        table = self.outputs.to(hidden.dtype) if self._product is None else self._product.weight
        with torch.autocast(device_type, enabled=False):
            logits = torch.mm(hidden, table.t(), out=self._buffer("logits", len(hidden), len(table), hidden.dtype))
            cross_entropy = self._compiled_cross_entropy if self._is_compiled else self._cross_entropy
            total, gradient = cross_entropy(logits, labels, label_count, smoothing)
            if logits.dtype != gradient.dtype:
                gradient = logits.copy_(gradient)
            if self._product is not None:
                self._product.add_gradient(gradient, hidden)
            elif self.outputs.requires_grad:
                self._add_product(self.outputs, gradient.t(), hidden)
            return total, (gradient @ table).to(given_dtype)  # [labels, d_model]

    def _cross_entropy(
        self, logits: torch.Tensor, labels: torch.Tensor, label_count: int, smoothing: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss [] and its gradient by the logits, at least float32 [labels, vocabulary]; overwrites such logits."""
        shares = logits
        if logits.dtype.itemsize < torch.float32.itemsize:
            shares = self._buffer("shares", len(logits), logits.shape[1], torch.float32).copy_(logits)
        right = shares.gather(1, labels[:, None])[:, 0]  # [labels]
        mean = shares.mean(-1) if smoothing else right
        highest = shares.amax(-1, keepdim=True)  # [labels, 1]
        sums = shares.sub_(highest).exp_().sum(-1, keepdim=True)
        log_normalizer = (highest + sums.log())[:, 0]
        total = (log_normalizer - (1 - smoothing) * right - smoothing * mean).sum() / label_count
        # Softmax minus target, scaled as the loss is.
        gradient = shares.div_(sums * label_count)
        if smoothing:
            gradient.sub_(smoothing / gradient.shape[1] / label_count)
        target = gradient.new_full((len(labels), 1), (smoothing - 1) / label_count)
        gradient.scatter_add_(1, labels[:, None], target)
        return total, gradient

    def _compiled_cross_entropy(
        self, logits: torch.Tensor, labels: torch.Tensor, label_count: int, smoothing: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, the gradient in the format of the logits; as it is where it does not compile."""
        share = torch.tensor(1 / label_count, dtype=torch.float64)  # on the CPU
        try:
            both: tuple[torch.Tensor, torch.Tensor] = formulas.compiled(formulas.cross_entropy)(
                logits, labels[:, None], share, smoothing
            )
        except torch._dynamo.exc.TorchDynamoException as error:
            _log.warning("the loss could not be compiled (%s); going on without", str(error)[:200])
            self._is_compiled = False
            return self._cross_entropy(logits, labels, label_count, smoothing)
        return both

    @torch.no_grad()
    def add_gradient(self, ids: torch.Tensor, embedded: torch.Tensor) -> None:
        """Adds the gradient that reached `embedded` to the rows of the input table that `ids` name."""
        if embedded.grad is None:
            return
        if self._product is not None and self.inputs is self.outputs:
            self._product.add_row_gradients(ids.flatten(), embedded.grad.flatten(0, -2))
            return
        if self.inputs.grad is None:
            self.inputs.grad = self._gradient_buffer(self.inputs).zero_()
        self.inputs.grad.index_add_(0, ids.flatten(), embedded.grad.flatten(0, -2))

    def _add_product(self, table: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """table.grad += rows @ columns, in one pass where the formats are the same."""
        is_first = table.grad is None
        if is_first:
            table.grad = self._gradient_buffer(table)
        assert table.grad is not None
        if rows.dtype != table.grad.dtype:
            product = torch.mm(rows, columns, out=self._buffer("product", len(table), table.shape[1], rows.dtype))
            table.grad.copy_(product) if is_first else table.grad.add_(product)
        elif is_first:
            torch.mm(rows, columns, out=table.grad)
        else:
            table.grad.addmm_(rows, columns)

    def _gradient_buffer(self, table: torch.Tensor) -> torch.Tensor:
        return self._gradients.setdefault(id(table), torch.empty_like(table, requires_grad=False))

    def _buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """[rows, columns] in memory reused from update to update: in a CPU's fresh memory each page costs a fault."""
        buffer = self._scratch.get(name)
        if buffer is None or len(buffer) < rows * columns or buffer.dtype != dtype:
            buffer = torch.empty(rows * columns, dtype=dtype, device=self.outputs.device)
            self._scratch[name] = buffer
        return buffer[: rows * columns].view(rows, columns)
