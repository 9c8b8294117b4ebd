"""ONNX operators that aren't layers, as functions on tensors; named and specified as in ONNX.

Shapes, axes and other settings come as Python numbers. torch is imported where a tensor's own
methods don't do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Tensor = Any


def reshape(x: Tensor, shape: Sequence[int], allow_zero: bool = False) -> Tensor:
    """Reshape: 0 copies the dimension unless ``allow_zero``, -1 is what is left."""
    return x.reshape(
        [x.shape[i] if isinstance(d, int) and d == 0 and not allow_zero else d for i, d in enumerate(shape)]
    )


def flatten(x: Tensor, axis: int) -> Tensor:
    """Flatten to two dimensions, split at ``axis``."""
    if axis == 0:
        return x.reshape(1, -1)
    if axis == 1:
        return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)
    return x.flatten(axis).flatten(0, axis - 1) if axis < x.ndim else x.reshape(-1, 1)


def squeeze(x: Tensor, axes: Sequence[int] | None) -> Tensor:
    """Squeeze."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Unsqueeze: ``axes`` count in the result."""
    rank = x.ndim + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def concat(axis: int, *parts: Tensor) -> Tensor:
    """Concat."""
    import torch

    return torch.cat(parts, dim=axis)


def split(x: Tensor, parts: Sequence[int] | int, axis: int) -> tuple[Tensor, ...]:
    """Split into pieces of the given sizes, or into so many equal ones (the last may be smaller)."""
    if isinstance(parts, int):
        return tuple(x.split(-(-x.shape[axis] // parts), dim=axis))
    return tuple(x.split(list(parts), dim=axis))


def take_slice(
    x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> Tensor:
    """Slice; a negative step reads backwards."""
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axes[i] if axes is not None else i
        step = steps[i] if steps is not None else 1
        if step < 0:
            x = _backwards(x, axis, start, end, step)
            continue
        index: list[Any] = [slice(None)] * x.ndim
        index[axis] = slice(start, end, step)
        x = x[tuple(index)]
    return x


def _backwards(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    length = x.shape[axis]
    last = length - 1
    first = min(start if start >= 0 else start + length, last)
    stop = max(end if end >= 0 else end + length, -1)
    return take_slice(x.flip(axis), [last - first], [last - stop], [axis], [-step])


def gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Gather rows along ``axis``; negative indices count from the end."""
    if isinstance(index, int):
        return x.select(axis, index)
    axis %= x.ndim
    index = index.where(index >= 0, index + x.shape[axis])
    taken = x.index_select(axis, index.reshape(-1))
    return taken.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def gather_elements(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """GatherElements."""
    axis %= x.ndim
    return x.gather(axis, index.where(index >= 0, index + x.shape[axis]))


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Expand: both ways, as in numpy; a 1 keeps the dimension."""
    rank = max(x.ndim, len(shape))
    own, wanted = [1] * (rank - x.ndim) + list(x.shape), [1] * (rank - len(shape)) + list(shape)
    return x.expand([o if isinstance(w, int) and w == 1 else w for o, w in zip(own, wanted, strict=True)])


def tile(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """Tile."""
    return x.tile(tuple(repeats))


def pad(x: Tensor, pads: Sequence[int], mode: str = "constant", value: float = 0.0, axes: Any = None) -> Tensor:
    """Pad: ``pads`` are all begins, then all ends."""
    from torch.nn import functional

    count = len(pads) // 2
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(axes if axes is not None else range(count)):
        before[axis], after[axis] = pads[i], pads[count + i]
    names = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    pairs = [(b, a) for b, a in zip(before, after, strict=True)]
    if mode != "constant":  # torch pads the last dimensions only, and wants no others named
        first = next((i for i, p in enumerate(pairs) if any(p)), x.ndim - 1)
        pairs = pairs[min(first, x.ndim - 1) :]
    flat = [n for pair in reversed(pairs) for n in pair]
    return functional.pad(x, flat, names[mode], value if mode == "constant" else None)


def cast(x: Tensor, dtype: str) -> Tensor:
    """Cast to torch's type of that name."""
    import torch

    return x.to(getattr(torch, dtype))


def div(a: Tensor, b: Tensor) -> Tensor:
    """Div: whole numbers are cut toward zero."""
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    return a.div(b, rounding_mode="trunc")


def mod(a: Tensor, b: Tensor, c_like: bool) -> Tensor:
    """Mod: with ``c_like`` the sign is the dividend's, else the divisor's."""
    return a.fmod(b) if c_like else a.remainder(b)


def fold(op: str, *parts: Tensor) -> Tensor:
    """Max, Min, Sum and Mean of any number of tensors."""
    out = parts[0]
    for part in parts[1:]:
        out = out.maximum(part) if op == "Max" else out.minimum(part) if op == "Min" else out + part
    return out / len(parts) if op == "Mean" else out


def clip(x: Tensor, low: Any, high: Any) -> Tensor:
    """Clip."""
    return x.clamp(low, high)


def reduce(x: Tensor, op: str, axes: Sequence[int] | None, keep: bool) -> Tensor:
    """The operators that begin with Reduce; without ``axes`` over all."""
    dims = tuple(axes) if axes is not None else tuple(range(x.ndim))
    if not dims:
        return x
    if op == "ReduceProd":
        for axis in sorted((d % x.ndim for d in dims), reverse=True):
            x = x.prod(axis, keepdim=keep)
        return x
    return _REDUCE[op](x, dims, keep)


_REDUCE: dict[str, Callable[[Any, tuple[int, ...], bool], Any]] = {
    "ReduceMean": lambda x, d, keep: x.mean(d, keepdim=keep),
    "ReduceSum": lambda x, d, keep: x.sum(d, keepdim=keep, dtype=x.dtype),
    "ReduceMax": lambda x, d, keep: x.amax(d, keepdim=keep),
    "ReduceMin": lambda x, d, keep: x.amin(d, keepdim=keep),
    "ReduceL1": lambda x, d, keep: x.abs().sum(d, keepdim=keep),
    "ReduceL2": lambda x, d, keep: (x * x).sum(d, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda x, d, keep: (x * x).sum(d, keepdim=keep),
    "ReduceLogSum": lambda x, d, keep: x.sum(d, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, d, keep: x.logsumexp(d, keepdim=keep),
}


def arg(x: Tensor, largest: bool, axis: int, keep: bool) -> Tensor:
    """ArgMax and ArgMin."""
    return x.argmax(axis, keepdim=keep) if largest else x.argmin(axis, keepdim=keep)


def cumsum(x: Tensor, axis: int) -> Tensor:
    """CumSum."""
    return x.cumsum(axis, dtype=x.dtype)


def flat_softmax(x: Tensor, axis: int, log: bool) -> Tensor:
    """Softmax before opset 13: over all dimensions from ``axis`` on together."""
    y = flatten(x, axis % x.ndim)
    return (y.log_softmax(1) if log else y.softmax(1)).reshape(x.shape)


def arange(start: Any, limit: Any, step: Any, *, device: str | None = None) -> Tensor:
    """Range of whole numbers."""
    import torch

    return torch.arange(start, limit, step, device=device)


def full(shape: Sequence[int], value: float, dtype: str, *, device: str | None = None) -> Tensor:
    """ConstantOfShape."""
    import torch

    return torch.full(tuple(shape), value, dtype=getattr(torch, dtype), device=device)


def trilu(x: Tensor, upper: bool, diagonal: int) -> Tensor:
    """Trilu."""
    return x.triu(diagonal) if upper else x.tril(diagonal)


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Where."""
    import torch

    return torch.where(condition, a, b)


def einsum(equation: str, *parts: Tensor) -> Tensor:
    """Einsum."""
    import torch

    return torch.einsum(equation, *parts)


def gemm(a: Tensor, b: Tensor, c: Any, alpha: float, beta: float, turned: tuple[bool, bool]) -> Tensor:
    """Gemm of two computed matrices."""
    out = (a.T if turned[0] else a) @ (b.T if turned[1] else b)
    out = out if alpha == 1.0 else out * alpha
    return out if c is None else out + (c if beta == 1.0 else c * beta)


def depth_to_space(x: Tensor, block: int, columns_first: bool) -> Tensor:
    """DepthToSpace: DCR, or with ``columns_first`` CRD, which is torch's pixel shuffle."""
    n, c, h, w = x.shape
    out = c // (block * block)
    if columns_first:
        y = x.reshape(n, out, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        y = x.reshape(n, block, block, out, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, out, h * block, w * block)


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """SpaceToDepth."""
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * block * block, h // block, w // block)


def resize(x: Tensor, sizes: Sequence[int] | None, scales: Sequence[float] | None, mode: str, corners: bool) -> Tensor:
    """Resize of the spatial dimensions: nearest, or (bi)linear and (bi)cubic with torch's coordinates."""
    from torch.nn import functional

    kwargs = {} if mode == "nearest" else {"align_corners": corners}
    size = list(sizes) if sizes is not None else None
    factor = list(scales) if size is None and scales is not None else None
    return functional.interpolate(x, size=size, scale_factor=factor, mode=mode, **kwargs)
