"""Calls of ops that real Keras answers in the same way."""

from __future__ import annotations

from typing import Any

import numpy as np

CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []


def t(name_: str, *args: Any, **kwargs: Any) -> None:
    """Add a call."""
    CASES.append((name_, args, kwargs))


def _arithmetic() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 5)).astype("f")
    y = rng.standard_normal((3, 4, 5)).astype("f")
    p = np.abs(x) + 0.1
    u = np.tanh(x)
    m = rng.standard_normal((4, 4)).astype("f")
    i = rng.integers(-9, 9, (3, 4)).astype("int32")
    j = rng.integers(1, 9, (3, 4)).astype("int32")
    b = x > 0
    nan = x.copy()
    nan[0, 0, 0] = np.nan
    nan[1] = np.nan
    v = rng.standard_normal(7).astype("f")
    w = rng.standard_normal(3).astype("f")
    img = rng.random((2, 8, 9, 3)).astype("f")
    for n in "negative abs absolute sign square exp expm1 sin cos tan sinh cosh tanh arcsinh arctan erf sigmoid floor ceil round trunc isnan isinf isfinite isposinf isneginf logical_not exp2 cbrt erfc deg2rad rad2deg sinc relu relu6 leaky_relu softplus softsign silu swish log_sigmoid hard_sigmoid hard_silu hard_tanh hard_shrink soft_shrink tanh_shrink elu celu selu gelu squareplus sparse_plus sparse_sigmoid softmax log_softmax zeros_like ones_like ravel nan_to_num count_nonzero signbit angle".split():
        t(n, x)
        if (
            n
            not in (
                "relu6 leaky_relu softplus softsign silu swish log_sigmoid hard_sigmoid hard_silu hard_tanh hard_shrink soft_shrink tanh_shrink elu celu selu gelu squareplus sparse_plus sparse_sigmoid softmax log_softmax sigmoid erf erfc"
            ).split()
        ):
            t(n, i)
    for n in "log log1p sqrt rsqrt log2 log10 reciprocal arccosh".split():
        t(n, p + 1)
    for n in "arcsin arccos arctanh erfinv".split():
        t(n, u * 0.99)
    for n in "add subtract multiply divide true_divide floor_divide mod maximum minimum arctan2 equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor logaddexp logaddexp2 hypot heaviside divide_no_nan fmod".split():
        t(n, x, y)
        t(n, x[:, :1], y[0])
        if n != "logaddexp2":
            t(n, i, j)
            t(n, x[:, :, 0], j)
            t(n, x, 2)
            t(n, j, 2)
        if n not in ("heaviside", "copysign"):
            t(n, 2.5, j)
    for n in "gcd lcm bitwise_and bitwise_or bitwise_xor".split():
        t(n, i, j)
    t("power", p, y)
    t("power", p, 2)
    t("power", 2, j)
    t("left_shift", j, 2)
    t("right_shift", i, 1)
    t("ldexp", x[:, :, 0], j)
    t("where", b, x, y)
    t("where", b, x, 0)
    t("where", b, 1, 2.5)
    t("clip", x, -0.5, 0.5)
    t("clip", i, -2, 2)
    t("nonzero", i)
    t("where", b)
    t("cast", x * 10, "int32")
    t("cast", i, "bool")
    t("round", x, 1)
    for n in "sum mean max min prod var std any all logsumexp argmax argmin ptp amax amin".split():
        if n == "ptp":
            t(n, x, axis=1)
            continue
        t(n, x)
        t(n, x, axis=1)
        t(n, x, axis=-1, keepdims=True)
        if not n.startswith("arg"):
            t(n, x, axis=(0, 2))
            t(n, x, axis=(0, -1), keepdims=True)
        if n != "logsumexp":
            t(n, i)
            t(n, i, axis=0)
        if n in ("sum", "mean", "max", "any", "all", "prod"):
            t(n, b, axis=1)
    for n in "nansum nanmean nanmax nanmin nanprod nanstd nanvar nanargmax".split():
        t(
            n, nan[:, 1:] if "arg" in n else nan, axis=1 if "arg" not in n else 0
        ) if n != "nanargmax" else None
    for n in "cumsum cumprod".split():
        t(n, x)
        t(n, x, axis=1)
        t(n, i, axis=0)
    t("average", x, axis=1)
    t("average", x, axis=1, weights=np.abs(v[:4]))
    t("average", x, weights=p)
    t("norm", x)
    t("norm", x, axis=1)
    t("norm", v, ord=1)
    t("norm", v, ord=3)
    t("norm", v, ord=np.inf)
    t("norm", m, ord=1)
    t("norm", m, ord="fro")
    t("norm", m, ord=np.inf)
    t("norm", m, ord=2)
    t("norm", m, ord="nuc")
    t("norm", x, ord=1, axis=(1, 2))
    t("norm", x, axis=(1, 2), keepdims=True)
    t("full", (2, 3), 7)
    t("full", (2, 3), 7, dtype="int32")
    t("zeros", (2,))
    t("ones", 3)
    t("eye", 3)
    t("eye", 3, 4, k=1)
    t("identity", 3)
    t("arange", 5)
    t("arange", 1, 9, 2)
    t("arange", 0, 1, 0.1)
    t("arange", 5, dtype="float32")
    t("arange", 3, 0, -1)
    t("linspace", 0, 1, 5)
    t("linspace", 0, 1, 5, endpoint=False)
    t("linspace", v, v + 1, 4)
    t("linspace", v, v + 1, 4, axis=-1)
    t("logspace", 0, 2, 4)
    t("geomspace", 1.0, 100.0, 5)
    t("tri", 3)
    t("tri", 3, 4, k=1)
    t("tril", x)
    t("triu", x, k=1)
    t("diag", v)
    t("diag", v, k=-2)
    t("diag", v, k=1)
    t("diag", m)
    t("diag", m, k=1)
    t("diagflat", m)
    t("diagonal", x)
    t("diagonal", x, offset=1, axis1=1, axis2=2)
    t("trace", m)
    t("meshgrid", v, w)
    t("meshgrid", v, w, indexing="ij")
    t("vander", v)
    t("vander", v, N=3, increasing=True)
    t("full_like", x, 2)
    t("full_like", i, 2)
    t("hanning", 5)
    t("hamming", 5)
    t("blackman", 5)
    t("bartlett", 5)
    t("kaiser", 5, 3.0)
    t("reshape", x, (4, -1))
    t("transpose", x)
    t("transpose", x, (1, 0, 2))
    t("swapaxes", x, 0, 2)
    t("moveaxis", x, 0, -1)
    t("moveaxis", x, (0, 1), (-1, 0))
    t("expand_dims", x, 1)
    t("expand_dims", x, (0, -1))
    t("squeeze", x[:1])
    t("squeeze", x[:, :1], 1)
    t("broadcast_to", w, (2, 3))
    t("concatenate", [x, y], axis=1)
    t("concatenate", [x, i[:, :, None].repeat(5, 2)], axis=0)
    t("append", x, y)
    t("append", x, y, axis=2)
    t("stack", [x, y])
    t("stack", [x, y], axis=-1)
    t("unstack", x)
    t("unstack", x, axis=1)
    t("split", x, 2, axis=1)
    t("split", x, [1, 3], axis=1)
    t("array_split", v, 3)
    t("hstack", [x, y])
    t("hstack", [v, w])
    t("vstack", [v, v])
    t("dstack", [m, m])
    t("hsplit", m, 2)
    t("vsplit", m, 2)
    t("tile", m, 2)
    t("tile", m, (2, 3))
    t("tile", m, (2, 1, 2))
    t("repeat", m, 2, axis=0)
    t("repeat", m, 2)
    t("repeat", w, np.array([1, 2, 0]))
    t("pad", m, 1)
    t("pad", m, ((1, 2), (0, 1)))
    t("pad", m, 1, mode="reflect")
    t("pad", m, ((1, 2), (0, 1)), mode="symmetric")
    t("pad", m, 1, constant_values=3)
    t("flip", x)
    t("flip", x, axis=1)
    t("fliplr", m)
    t("flipud", m)
    t("roll", x, 2)
    t("roll", x, -1, axis=1)
    t("roll", m, (1, 2), axis=(0, 1))
    t("rot90", m)
    t("rot90", m, k=3)
    t("rot90", x, k=1, axes=(1, 2))
    t("take", x, np.array([0, -1, 2]), axis=1)
    t("take", x, np.array([[0, 5], [2, 1]]))
    t("take_along_axis", x, np.array(rng.integers(0, 4, (3, 2, 5))), axis=1)
    t("take_along_axis", x, np.argsort(x, -1), axis=-1)
    t("slice", x, (1, 0, 2), (2, 3, 2))
    t("slice_update", x, (1, 0, 2), y[:2, :3, :2])
    t("scatter", np.array([[0, 1], [2, 0], [0, 1]]), w, (3, 4))
    t("scatter_update", m, np.array([[0, 1], [2, 0]]), w[:2])
    t("one_hot", j, 10)
    t("one_hot", i, 5, axis=1)
    t("multi_hot", j, 10)
    t("segment_sum", x, np.array([0, 2, 0]), 3)
    t("segment_max", x, np.array([0, 2, 0]), 3)
    t("bincount", j[0], minlength=12)
    t("bincount", j[0], weights=np.ones(4, "f"))
    t("sort", x)
    t("sort", x, axis=0)
    t("argsort", x)
    t("argsort", x, axis=0)
    t("top_k", x, 3)
    t("in_top_k", np.array([0, 1, 2]), m[:3], 2)
    t("searchsorted", np.sort(v), x)
    t("searchsorted", np.sort(v), v, side="right")
    t("digitize", x, np.sort(v))
    t("unique", j)
    t("quantile", x, 0.3)
    t("quantile", x, np.array([0.1, 0.5], "f"), axis=1)
    t("quantile", x, 0.3, axis=1, keepdims=True, method="lower")
    t("percentile", x, 30)
    t("median", x)
    t("median", x, axis=(0, 1))
    t("median", x, axis=1, keepdims=True)
    t("isin", j, np.array([1, 2]))
    t("matmul", x, m.repeat(2, 0)[:5])
    t("matmul", x, np.swapaxes(y, 1, 2))
    t("matmul", v, v)
    t("matmul", x, v[:5])
    t("matmul", v[:4], x)
    t("matmul", i, j.T)
    t("dot", x, np.swapaxes(y, 1, 2))
    t("dot", m, v[:4])
    t("vdot", x, y)
    t("inner", x, y)
    t("outer", v, w)
    t("tensordot", x, y, axes=[[0, 1], [0, 1]])
    t("tensordot", x, np.swapaxes(y, 0, 2), axes=1)
    t("tensordot", m, m, axes=0)
    t("kron", m, m[:2])
    t("cross", x[..., :3], y[..., :3])
    t("correlate", v, w)
    t("correlate", v, w, mode="full")
    t("correlate", v, w, mode="same")
    for s, a in [
        ("abc,abd->acd", (x, y)),
        ("abc,abc->a", (x, y)),
        ("abc,abc->", (x, y)),
        ("abc->cba", (x,)),
        ("abc->b", (x,)),
        ("ii->i", (m,)),
        ("ii->", (m,)),
        ("ij,jk,kl->il", (m, m, m)),
        ("...c,cd->...d", (x, x[0, :, :].T)),
        ("abc,abd", (x, y)),
        ("ij,kl->ijkl", (m, m)),
        ("a...,b...->ab...", (x, y)),
        ("ij,ij->ij", (m, m)),
        ("bthd,bshd->bhts", (img, img[:, :4])),
    ]:
        if s.startswith("bthd"):
            a = (img, img[:, :4])
        t("einsum", s, *a)
    for pd in ("valid", "same"):
        for st in (1, 2, (2, 1)):
            t(
                "conv",
                img,
                rng.standard_normal((3, 2, 3, 4)).astype("f"),
                strides=st,
                padding=pd,
                data_format="channels_last",
            )
            t(
                "depthwise_conv",
                img,
                rng.standard_normal((3, 2, 3, 2)).astype("f"),
                strides=st if isinstance(st, int) else 1,
                padding=pd,
                data_format="channels_last",
            )
            for k in ((3, 3), (2, 2), (1, 1), (4, 3)):
                t(
                    "conv_transpose",
                    img,
                    rng.standard_normal((*k, 5, 3)).astype("f"),
                    strides=st,
                    padding=pd,
                    data_format="channels_last",
                )
            t(
                "conv_transpose",
                img,
                rng.standard_normal((3, 3, 5, 3)).astype("f"),
                strides=2,
                padding=pd,
                output_padding=1,
                data_format="channels_last",
            )
            for f in ("max_pool", "average_pool"):
                t(f, img, (3, 2), strides=st, padding=pd, data_format="channels_last")
    t(
        "conv",
        img,
        rng.standard_normal((3, 2, 3, 4)).astype("f"),
        dilation_rate=2,
        padding="same",
        data_format="channels_last",
    )
    t(
        "conv",
        img[:, :, 0],
        rng.standard_normal((3, 3, 4)).astype("f"),
        padding="same",
        data_format="channels_last",
    )
    t(
        "conv",
        img.transpose(0, 3, 1, 2),
        rng.standard_normal((3, 2, 3, 4)).astype("f"),
        data_format="channels_first",
    )
    t(
        "separable_conv",
        img,
        rng.standard_normal((3, 2, 3, 2)).astype("f"),
        rng.standard_normal((1, 1, 6, 4)).astype("f"),
        data_format="channels_last",
    )
    t("adaptive_average_pool", img, (3, 4), data_format="channels_last")
    t("adaptive_max_pool", img, (4, 3), data_format="channels_last")
    t("moments", x, [0, 1])
    t("moments", x, [1], keepdims=True)
    t("normalize", x)
    t("normalize", x, axis=1, order=1)
    t(
        "batch_normalization",
        x,
        v[:5],
        np.abs(v[:5]),
        axis=-1,
        offset=v[:5],
        scale=v[1:6],
        epsilon=1e-3,
    )
    t("layer_normalization", x, v[:5], v[:5])
    t("rms_normalization", x, v[:5])
    sm = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    oh = np.eye(5, dtype="f")[j % 5]
    t("categorical_crossentropy", oh, sm)
    t("categorical_crossentropy", oh, x, from_logits=True)
    t("sparse_categorical_crossentropy", j % 5, sm)
    t("sparse_categorical_crossentropy", j % 5, x, from_logits=True)
    t("binary_crossentropy", (x > 0).astype("f"), 1 / (1 + np.exp(-y)))
    t("binary_crossentropy", (x > 0).astype("f"), y, from_logits=True)
    t("glu", img[..., :2])
    t("threshold", x, 0.2, 5.0)
    t("gelu", x, approximate=False)
    q = rng.standard_normal((2, 6, 4, 8)).astype("f")
    t("dot_product_attention", q, q, q)
    t("dot_product_attention", q, q[:, :, :2], q[:, :, :2], is_causal=True)
    t("dot_product_attention", q, q, q, mask=rng.random((2, 1, 6, 6)) > 0.3)
    t("depth_to_space", rng.random((2, 3, 3, 8)).astype("f"), 2, data_format="channels_last")
    t("space_to_depth", rng.random((2, 4, 6, 3)).astype("f"), 2, data_format="channels_last")
    t("psnr", x, y, 1.0)
    t("fliplr", m)
    t("log_softmax", x, axis=1)
    t("softmax", x, axis=(0, 2))
    t("rearrange", x, "a b c -> c (a b)")


def _transforms() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 4, 10)).astype("f")
    y = rng.standard_normal((3, 4, 10)).astype("f")
    a = rng.standard_normal((5, 5)).astype("f")
    pd = (a @ a.T + 5 * np.eye(5)).astype("f")
    stack = np.stack([pd, pd + np.eye(5, dtype="f")])
    b = rng.standard_normal((5, 2)).astype("f")
    big = rng.standard_normal((2, 200)).astype("f")
    t("fft", (x, y))
    t("fft", (big, big))
    t("fft2", (x, y))
    t("ifft2", (x, y))
    t("rfft", x)
    t("rfft", x, 16)
    t("rfft", x[..., :9])
    t("rfft", big)
    t("irfft", (x, y))
    t("irfft", (x, y), 15)
    t("irfft", (x, y), 7)
    t("stft", big, 16, 8, 32)
    t("stft", big, 16, 8, 32, center=False, window="hamming")
    t("stft", big, 32, 10, 32, window=None)
    s = tuple(rng.standard_normal((2, 25, 17)).astype("f") for _ in range(2))
    t("istft", s, 16, 8, 32)
    t("istft", s, 16, 8, 32, length=190)

    t("extract_sequences", big, 16, 7)
    t("fabs", x)
    t("fmax", x, y)
    t("fmin", x, y)
    t("isclose", x, x + 1e-7)
    t("allclose", x, x)
    t("saturate_cast", x * 300, "uint8")
    t("saturate_cast", (x * 300).astype("int32"), "int8")
    t("i0", x * 3)
    t("nextafter", x, y)
    t("select", [x > 1, x > 0], [x, y], 5.0)
    t("diff", x)
    t("diff", x, n=2, axis=1)
    t("trapezoid", x)
    t("unfold", rng.random((2, 3, 6, 7)).astype("f"), 3)
    t("unfold", rng.random((2, 3, 6, 7)).astype("f"), (2, 3), stride=2, padding=1)
    t("fold", rng.random((2, 12, 9)).astype("f"), (4, 4), 2)
    t("fold", rng.random((2, 12, 9)).astype("f"), (6, 6), 2, stride=2)
    t("segment_prod", x, np.array([0, 2, 0]), 3)
    for n in "cholesky inv det slogdet logdet".split():
        t(n, stack)
        t(n, pd)
    t("eigh", pd)
    t("solve", pd, b)
    t("solve", stack, np.stack([b, b]))
    t("solve", pd, b[:, 0])
    t("solve_triangular", np.tril(pd), b, lower=True)
    t("svd", a, compute_uv=False)
    t("lstsq", rng.random((7, 3)).astype("f"), rng.random((7, 2)).astype("f"))
    t("pinv", a[:, :3])
    t("matrix_rank", a)
    t("lu_factor", a)
    t("cholesky_inverse", np.linalg.cholesky(pd))
    t("cdist", x[0], y[0])
    t("corrcoef", x[0])
    t("cholesky", pd, upper=True)


def _images() -> None:
    rng = np.random.default_rng(2)
    im = rng.random((2, 8, 9, 3)).astype("f")
    for m in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"):
        for s in ((4, 5), (16, 20), (8, 4)):
            for aa in (False, True):
                t("image.resize", im, s, interpolation=m, antialias=aa)
    t("image.resize", im, (4, 8), crop_to_aspect_ratio=True)
    t("image.resize", im, (4, 8), pad_to_aspect_ratio=True)
    t("image.resize", im[0], (4, 4))
    t("image.rgb_to_grayscale", im)
    t("image.rgb_to_hsv", im)
    t("image.hsv_to_rgb", im)
    t("image.crop_images", im, 1, 2, target_height=4, target_width=3)
    t("image.pad_images", im, 1, 2, 1, 1)
    t("image.extract_patches", im, (3, 2))
    t("image.extract_patches", im, 3, 1, padding="same")
    t("image.extract_patches", im, 3, (2, 2), dilation_rate=1, padding="valid")
    t("image.gaussian_blur", im, (3, 5), (1.0, 2.0), data_format="channels_last")
    t("image.map_coordinates", im[0, :, :, 0], rng.random((2, 5, 6)).astype("f") * 12 - 2, 1)
    for f in ("nearest", "reflect", "mirror", "wrap", "constant"):
        for o in (0, 1):
            t(
                "image.map_coordinates",
                im[0, :, :, 0],
                rng.random((2, 5, 6)).astype("f") * 12 - 2,
                o,
                fill_mode=f,
            )
    t(
        "image.affine_transform",
        im,
        np.concatenate([rng.random((2, 6)), np.zeros((2, 2))], 1).astype("f"),
        interpolation="nearest",
    )
    t(
        "image.affine_transform",
        im,
        np.concatenate([rng.random((2, 6)), np.zeros((2, 2))], 1).astype("f"),
        fill_mode="reflect",
    )
    sp = np.array([[[0, 0], [0, 8], [7, 0], [7, 8]]] * 2, "f")
    t("image.perspective_transform", im, sp, sp + rng.random((2, 4, 2)).astype("f"))
    t("image.sobel_edges", im)


_arithmetic()
_transforms()
_images()
