"""Attention: outputs as means of values, weighted by how well keys answer to queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lamina import ops, random
from lamina.errors import ShapeError, layout
from lamina.layers.einsum_dense import EinsumDense
from lamina.layers.layer import Layer
from lamina.layers.rules import rules_config, set_rules
from lamina.tensor import Tensor, Variable, convert


def causal_mask(queries: Any, keys: Any) -> Any:
    """Truth values (1, T, S): whether step t may look at step s, which is not later."""
    rows = ops.expand_dims(ops.arange(queries, dtype="int32"), 1)
    columns = ops.expand_dims(ops.arange(keys, dtype="int32"), 0)
    return ops.expand_dims(rows >= columns, 0)


def window_mask(queries: Any, keys: Any, width: int) -> Any:
    """Truth values (1, T, S): whether the distance of two steps is less than `width`."""
    rows = ops.expand_dims(ops.arange(queries, dtype="int32"), 1)
    columns = ops.expand_dims(ops.arange(keys, dtype="int32"), 0)
    return ops.expand_dims(ops.abs(rows - columns) < width, 0)


def _by_head(x: Any) -> Any:
    """(B, T, N, H) as (B, N, T, H), and back."""
    return ops.transpose(x, (0, 2, 1, 3))


class HeadAttention(Layer):
    """What multi-head and grouped attention share: projections, masks, the attention itself."""

    _query_dense: EinsumDense
    _key_dense: EinsumDense
    _value_dense: EinsumDense
    _output_dense: EinsumDense

    def __init__(
        self,
        dropout: float,
        use_bias: bool,
        sliding_window: int | None,
        use_gate: bool,
        seed: Any,
        kernel: tuple[Any, Any, Any],
        bias: tuple[Any, Any, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"{self.name}: dropout is in [0, 1], got {dropout}.")
        if sliding_window is not None and sliding_window < 1:
            raise ValueError(f"{self.name}: sliding_window is 1 or more, got {sliding_window}.")
        self.dropout = dropout
        self.use_bias = use_bias
        self.sliding_window = sliding_window
        self.use_gate = use_gate
        self.seed = seed
        set_rules(self, "kernel", *kernel)
        set_rules(self, "bias", *bias)
        if dropout:
            self.seed_generator = random.SeedGenerator(seed)

    @property
    def query_dense(self) -> EinsumDense:
        """The projection of the queries."""
        return self._query_dense

    @property
    def key_dense(self) -> EinsumDense:
        """The projection of the keys."""
        return self._key_dense

    @property
    def value_dense(self) -> EinsumDense:
        """The projection of the values."""
        return self._value_dense

    @property
    def output_dense(self) -> EinsumDense:
        """The projection of the result."""
        return self._output_dense

    def projection(
        self, equation: str, output_shape: Sequence[Any], bias_axes: str, shape: Any, name: str
    ) -> EinsumDense:
        """A projection with initializers of its own, so that no two begin alike."""
        options: dict[str, Any] = {"dtype": self.dtype_policy, "name": name}
        for weight in ("kernel", "bias"):
            given = getattr(self, f"{weight}_initializer")
            options[f"{weight}_initializer"] = given.clone() if hasattr(given, "clone") else given
            for part in ("regularizer", "constraint"):
                options[f"{weight}_{part}"] = getattr(self, f"{weight}_{part}")
        if name == "gate":
            options["activation"] = "sigmoid"
        layer = EinsumDense(
            equation, output_shape, bias_axes=bias_axes if self.use_bias else None, **options
        )
        layer.build(shape)
        layer.built = True
        return layer

    def mask_of(
        self,
        query: Any,
        value: Any,
        query_mask: Any,
        value_mask: Any,
        key_mask: Any,
        attention_mask: Any,
        use_causal_mask: bool,
    ) -> Any:
        """All masks as one of shape (batch or 1, T, S) or more axes; None if there is none."""
        parts = []
        if query_mask is not None:
            parts.append(ops.expand_dims(ops.cast(query_mask, "bool"), -1))
        parts += [
            ops.expand_dims(ops.cast(mask, "bool"), -2)
            for mask in (value_mask, key_mask)
            if mask is not None
        ]
        if use_causal_mask:
            parts.append(causal_mask(query.shape[1], value.shape[1]))
        if self.sliding_window is not None:
            parts.append(window_mask(query.shape[1], value.shape[1], self.sliding_window))
        if attention_mask is not None:
            parts.append(ops.cast(attention_mask, "bool"))
        whole = None
        for part in parts:
            whole = part if whole is None else ops.logical_and(whole, part)
        return whole

    def attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        mask: Any,
        training: bool | None,
        return_scores: bool,
    ) -> tuple[Any, Any]:
        """Attention of each head: (B, T, N, H), (B, S, N, H), (B, S, N, V) to (B, T, N, V).

        mask   (B or 1, T, S), or (B or 1, N or 1, T, S); None: everything is seen
        """
        scale = 1.0 / math.sqrt(query.shape[-1])
        if mask is not None and len(mask.shape) == 3:
            mask = ops.expand_dims(mask, 1)
        if not self.dropout and not return_scores:
            return ops.dot_product_attention(query, key, value, mask=mask, scale=scale), None
        scores = ops.matmul(_by_head(query) * scale, ops.transpose(key, (0, 2, 3, 1)))
        if mask is not None:
            least = -3e4 if scores.dtype == "float16" else -1e9
            scores = ops.where(mask, scores, least)
        scores = ops.softmax(scores, axis=-1)
        if mask is not None:
            scores = ops.where(mask, scores, 0.0)
        kept = scores
        if self.dropout and training:
            kept = random.dropout(scores, self.dropout, seed=self.seed_generator)
        return _by_head(ops.matmul(kept, _by_head(value))), scores

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return previous_mask

    def attention_config(self, *names: str) -> dict[str, Any]:
        """The arguments of this base, and those of `names`."""
        shared = ("use_bias", "use_gate", "sliding_window", "dropout")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in (*names, *shared)},
            **rules_config(self, "kernel", "bias"),
            "seed": self.seed,
        }


class MultiHeadAttention(HeadAttention):
    """Several attentions side by side (Vaswani et al. 2017).

    Queries (B, T, D) and values, which are also the keys, (B, S, E) give (B, T, D).

    num_heads        number of heads
    key_dim          size of the queries and keys of one head
    value_dim        size of the values of one head; `key_dim` if it is not given
    dropout          share of the attention weights that training drops
    output_shape     size of the last axis (or axes) of the result, if not that of the queries
    attention_axes   the axes over which attention runs; None: all but the first and the last
    sliding_window   look only at steps closer than this
    use_gate         multiply the heads by sigmoid(projection of the queries)

    The call takes `attention_mask` (B, T, S), true where a query may see a key;
    `use_causal_mask`; and `return_attention_scores`, which gives (output, scores (B, N, T, S)).
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: Any = None,
        attention_axes: Any = None,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        del flash_attention
        super().__init__(
            dropout,
            use_bias,
            sliding_window,
            use_gate,
            seed,
            (kernel_initializer, kernel_regularizer, kernel_constraint),
            (bias_initializer, bias_regularizer, bias_constraint),
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        for what, size in (("num_heads", num_heads), ("key_dim", key_dim)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{self.name}: {what} is a positive integer, got {size!r}.")
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = value_dim or key_dim
        self.output_size = (output_shape,) if isinstance(output_shape, int) else output_shape
        axes = (attention_axes,) if isinstance(attention_axes, int) else attention_axes
        self.attention_axes = None if axes is None else tuple(axes)

    def build(
        self, query_shape: Any = None, value_shape: Any = None, key_shape: Any = None
    ) -> None:
        value_shape = query_shape if value_shape is None else value_shape
        key_shape = value_shape if key_shape is None else key_shape
        if tuple(key_shape[1:-1]) != tuple(value_shape[1:-1]):
            raise ShapeError(
                layout(
                    f"{self.name}: keys and values must have the same steps.",
                    [("key", str(tuple(key_shape))), ("value", str(tuple(value_shape)))],
                )
            )
        n = self.num_heads
        self._query_dense = self._head_projection(query_shape, n, self.key_dim, "query")
        self._key_dense = self._head_projection(key_shape, n, self.key_dim, "key")
        if self.use_gate:
            self._gate_dense = self._head_projection(query_shape, n, self.value_dim, "gate")
        self._value_dense = self._head_projection(value_shape, n, self.value_dim, "value")
        sizes = tuple(self.output_size or (query_shape[-1],))
        free = "abcdefgh"[: len(query_shape) - 1]
        out = "uvwxyz"[: len(sizes)]
        self._output_dense = self.projection(
            f"{free}mn,mn{out}->{free}{out}",
            (*(None for _ in free[1:]), *sizes),
            out,
            (*query_shape[:-1], n, self.value_dim),
            "attention_output",
        )

    def _head_projection(self, shape: Any, heads: int, size: int, name: str) -> EinsumDense:
        free = "abcdefgh"[: len(shape) - 1]
        return self.projection(
            f"{free}m,mno->{free}no", (*(None for _ in free[1:]), heads, size), "no", shape, name
        )

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        key = value if key is None else key
        # Masks have been taken in; the projections need not carry them on.
        query, value, key = (Tensor(convert(x).node) for x in (query, value, key))
        mask = self.mask_of(
            query, value, query_mask, value_mask, key_mask, attention_mask, use_causal_mask
        )
        gate = self._gate_dense(query) if self.use_gate else None
        q, k, v = self._query_dense(query), self._key_dense(key), self._value_dense(value)
        if len(q.shape) == 4:
            output, scores = self.attend(q, k, v, mask, training, return_attention_scores)
        else:
            output, scores = self._attend_along(q, k, v, mask, training, return_attention_scores)
        if gate is not None:
            output = output * gate
        output = self._output_dense(output)
        return (output, scores) if return_attention_scores else output

    def _attend_along(
        self, q: Any, k: Any, v: Any, mask: Any, training: bool | None, return_scores: bool
    ) -> tuple[Any, Any]:
        """Attention over some of several axes: the others join the batch."""
        rank = len(q.shape) - 1
        axes = self.attention_axes or tuple(range(1, rank - 1))
        axes = tuple(axis % rank for axis in axes)
        free = tuple(axis for axis in range(1, rank - 1) if axis not in axes)
        order = (0, *free, *axes, rank - 1, rank)

        def folded(x: Any) -> Any:
            moved = ops.transpose(x, order)
            lead: Any = moved.shape[0]
            for size in moved.shape[1 : 1 + len(free)]:
                lead = lead * size
            steps: Any = math.prod(moved.shape[1 + len(free) : -2])
            return ops.reshape(moved, (lead, steps, *moved.shape[-2:]))

        if mask is not None:
            queries, keys = folded(q).shape[1], folded(k).shape[1]
            mask = ops.reshape(mask, (mask.shape[0], queries, keys))
            if free:
                mask = (
                    mask
                    if mask.shape[0] == 1
                    else ops.repeat(mask, math.prod(q.shape[axis] for axis in free), 0)
                )
        output, scores = self.attend(folded(q), folded(k), folded(v), mask, training, return_scores)
        moved = [q.shape[axis] for axis in order[:-1]]
        output = ops.reshape(output, (*moved, output.shape[-1]))
        back = [0] * len(order)
        for place, axis in enumerate(order):
            back[axis] = place
        if scores is not None:
            lengths = [x.shape[axis] for x in (q, k) for axis in axes]
            lead = [q.shape[axis] for axis in (0, *free)]
            scores = ops.reshape(scores, (*lead, self.num_heads, *lengths))
        return ops.transpose(output, tuple(back)), scores

    def get_config(self) -> dict[str, Any]:
        known = self.attention_config("num_heads", "key_dim", "value_dim", "attention_axes")
        return {**known, "output_shape": self.output_size}


class GroupQueryAttention(HeadAttention):
    """Multi-head attention in which groups of heads share keys and values (Ainslie et al. 2023).

    head_dim               size of each head
    num_query_heads        number of heads
    num_key_value_heads    number of heads of keys and values, a divisor of `num_query_heads`

    The other arguments and the call are those of `MultiHeadAttention`.
    """

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        del flash_attention
        super().__init__(
            dropout,
            use_bias,
            sliding_window,
            use_gate,
            seed,
            (kernel_initializer, kernel_regularizer, kernel_constraint),
            (bias_initializer, bias_regularizer, bias_constraint),
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        if num_query_heads % num_key_value_heads:
            raise ValueError(
                f"{self.name}: num_query_heads ({num_query_heads}) must be a multiple of "
                f"num_key_value_heads ({num_key_value_heads})."
            )
        self.head_dim = head_dim
        self.num_query_heads = num_query_heads
        self.num_key_value_heads = num_key_value_heads

    def build(
        self, query_shape: Any = None, value_shape: Any = None, key_shape: Any = None
    ) -> None:
        value_shape = query_shape if value_shape is None else value_shape
        key_shape = value_shape if key_shape is None else key_shape
        n, shared, h = self.num_query_heads, self.num_key_value_heads, self.head_dim
        equation = "abm,mno->abno"
        self._query_dense = self.projection(equation, (None, n, h), "no", query_shape, "query")
        self._key_dense = self.projection(equation, (None, shared, h), "no", key_shape, "key")
        if self.use_gate:
            self._gate_dense = self.projection(equation, (None, n, h), "no", query_shape, "gate")
        self._value_dense = self.projection(equation, (None, shared, h), "no", value_shape, "value")
        self._output_dense = self.projection(
            "abmn,mnu->abu",
            (None, query_shape[-1]),
            "u",
            (*query_shape[:-1], n, h),
            "attention_output",
        )

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        key = value if key is None else key
        # Masks have been taken in; the projections need not carry them on.
        query, value, key = (Tensor(convert(x).node) for x in (query, value, key))
        mask = self.mask_of(
            query, value, query_mask, value_mask, key_mask, attention_mask, use_causal_mask
        )
        gate = self._gate_dense(query) if self.use_gate else None
        q, k, v = self._query_dense(query), self._key_dense(key), self._value_dense(value)
        times = self.num_query_heads // self.num_key_value_heads
        k, v = (ops.repeat(x, times, 2) for x in (k, v))
        output, scores = self.attend(q, k, v, mask, training, return_attention_scores)
        if gate is not None:
            output = output * gate
        output = self._output_dense(output)
        return (output, scores) if return_attention_scores else output

    def get_config(self) -> dict[str, Any]:
        return self.attention_config("head_dim", "num_query_heads", "num_key_value_heads")


class Attention(Layer):
    """Dot-product attention on [query (B, T, D), value (B, S, D)] or [query, value, key].

    use_scale    multiply the scores by a learned number
    score_mode   "dot" (Luong et al. 2015), or "concat": a sum of tanh(query + key)
    dropout      share of the attention weights that training drops
    """

    scale: Variable | None
    concat_score_weight: Variable | None

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        if score_mode not in {"dot", "concat"}:
            raise ValueError(f"{self.name}: score_mode is 'dot' or 'concat', got {score_mode!r}.")
        self.use_scale = use_scale
        self.score_mode = score_mode
        self.dropout = dropout
        self.seed = seed
        if dropout:
            self.seed_generator = random.SeedGenerator(seed)
        self.scale = None
        self.concat_score_weight = None

    def build(self, input_shape: Any = None) -> None:
        if self.use_scale:
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight(
                shape=(), initializer="ones", name="concat_score_weight"
            )

    def scores(self, query: Any, key: Any) -> Any:
        """How well each key answers to each query: (B, T, S)."""
        if self.concat_score_weight is None:
            found = ops.matmul(query, ops.swapaxes(key, -2, -1))
            return found if self.scale is None else found * self.scale
        both = ops.expand_dims(query, -2) + ops.expand_dims(key, -3)
        both = both if self.scale is None else self.scale * both
        return self.concat_score_weight * ops.sum(ops.tanh(both), axis=-1)

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        training: bool = False,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        if not isinstance(inputs, (list, tuple)) or len(inputs) not in (2, 3):
            raise ShapeError(
                f"{self.name}: call it on a list, [query, value] or [query, value, key]."
            )
        query, value = inputs[0], inputs[1]
        key = inputs[2] if len(inputs) > 2 else value
        query_mask, value_mask = (mask[0], mask[1]) if mask is not None else (None, None)
        scores = self.scores(query, key)
        seen = None if value_mask is None else ops.expand_dims(ops.cast(value_mask, "bool"), -2)
        if use_causal_mask:
            earlier = causal_mask(query.shape[-2], key.shape[-2])
            seen = earlier if seen is None else ops.logical_and(seen, earlier)
        if seen is not None:
            least = 65504.0 if scores.dtype == "float16" else 1e9
            scores = ops.where(seen, scores, scores - least)
        weights = ops.softmax(scores, axis=-1)
        if training and self.dropout:
            weights = random.dropout(weights, self.dropout, seed=self.seed_generator)
        output = ops.matmul(weights, value)
        if query_mask is not None:
            output = ops.where(ops.expand_dims(ops.cast(query_mask, "bool"), -1), output, 0.0)
        return (output, weights) if return_attention_scores else output

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        if previous_mask is None or previous_mask[0] is None:
            return None
        return convert(previous_mask[0])

    def get_config(self) -> dict[str, Any]:
        names = ("use_scale", "score_mode", "dropout", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class AdditiveAttention(Attention):
    """Attention by a sum of tanh(query + key) (Bahdanau et al. 2015); call it as `Attention`.

    use_scale   weight the terms of the sum by a learned vector
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(use_scale=use_scale, dropout=dropout, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        if self.use_scale:
            size = input_shape[0][-1]
            self.scale = self.add_weight(shape=(size,), initializer="glorot_uniform", name="scale")

    def scores(self, query: Any, key: Any) -> Any:
        both = ops.tanh(ops.expand_dims(query, -2) + ops.expand_dims(key, -3))
        return ops.sum(both if self.scale is None else self.scale * both, axis=-1)

    def get_config(self) -> dict[str, Any]:
        known = super().get_config()
        del known["score_mode"]
        return known


GroupedQueryAttention = GroupQueryAttention
