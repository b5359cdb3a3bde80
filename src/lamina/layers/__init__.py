"""Layers, by the names of `keras.layers`; each is imported at its first use."""

from __future__ import annotations

import importlib
from typing import Any

from lamina.errors import near_matches

# module -> the public names that it holds
_MODULES: dict[str, tuple[str, ...]] = {
    "layer": ("Layer",),
    "policy": ("DTypePolicy",),
    "spec": ("InputSpec",),
    "symbolic": ("KerasTensor",),
    "core": (
        "Activation",
        "ActivityRegularization",
        "Identity",
        "Input",
        "InputLayer",
        "Lambda",
        "Masking",
    ),
    "dense": ("Dense",),
    "activation": ("ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax"),
    "shape": (
        "Cropping1D",
        "Cropping2D",
        "Cropping3D",
        "Flatten",
        "Permute",
        "RepeatVector",
        "Reshape",
        "UpSampling1D",
        "UpSampling2D",
        "UpSampling3D",
        "ZeroPadding1D",
        "ZeroPadding2D",
        "ZeroPadding3D",
    ),
    "merge": (
        "Add",
        "Average",
        "Concatenate",
        "Dot",
        "Maximum",
        "Minimum",
        "Multiply",
        "Subtract",
        "add",
        "average",
        "concatenate",
        "dot",
        "maximum",
        "minimum",
        "multiply",
        "subtract",
    ),
    "regularization": (
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
    ),
    "convolution": (
        "Conv1D",
        "Conv1DTranspose",
        "Conv2D",
        "Conv2DTranspose",
        "Conv3D",
        "Conv3DTranspose",
        "Convolution1D",
        "Convolution1DTranspose",
        "Convolution2D",
        "Convolution2DTranspose",
        "Convolution3D",
        "Convolution3DTranspose",
        "DepthwiseConv1D",
        "DepthwiseConv2D",
        "DepthwiseConvolution1D",
        "DepthwiseConvolution2D",
        "SeparableConv1D",
        "SeparableConv2D",
        "SeparableConvolution1D",
        "SeparableConvolution2D",
    ),
    "pooling": (
        "AdaptiveAveragePooling1D",
        "AdaptiveAveragePooling2D",
        "AdaptiveAveragePooling3D",
        "AdaptiveMaxPooling1D",
        "AdaptiveMaxPooling2D",
        "AdaptiveMaxPooling3D",
        "AveragePooling1D",
        "AveragePooling2D",
        "AveragePooling3D",
        "AvgPool1D",
        "AvgPool2D",
        "AvgPool3D",
        "GlobalAveragePooling1D",
        "GlobalAveragePooling2D",
        "GlobalAveragePooling3D",
        "GlobalAvgPool1D",
        "GlobalAvgPool2D",
        "GlobalAvgPool3D",
        "GlobalMaxPool1D",
        "GlobalMaxPool2D",
        "GlobalMaxPool3D",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "GlobalMaxPooling3D",
        "MaxPool1D",
        "MaxPool2D",
        "MaxPool3D",
        "MaxPooling1D",
        "MaxPooling2D",
        "MaxPooling3D",
        "SumPooling1D",
        "SumPooling2D",
    ),
    "normalization": (
        "BatchNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "UnitNormalization",
    ),
    "embedding": ("Embedding",),
    "cells": ("GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"),
    "recurrent": ("GRU", "LSTM", "RNN", "SimpleRNN"),
    "wrappers": ("Bidirectional", "SpectralNormalization", "TimeDistributed", "Wrapper"),
    "conv_lstm": ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
    "einsum_dense": ("EinsumDense",),
    "attention": (
        "AdditiveAttention",
        "Attention",
        "GroupQueryAttention",
        "GroupedQueryAttention",
        "MultiHeadAttention",
    ),
    "features": ("CategoryEncoding", "Discretization", "Normalization", "Rescaling"),
    "augmentation": (
        "CenterCrop",
        "RandomBrightness",
        "RandomContrast",
        "RandomCrop",
        "RandomFlip",
        "RandomRotation",
        "RandomTranslation",
        "RandomZoom",
        "Resizing",
    ),
    "lookup": ("IntegerLookup", "StringLookup", "TextVectorization"),
    "registry": ("deserialize", "serialize"),
}

_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'lamina.layers' has no attribute {name!r}.{near_matches(name, _HOME)}",
            name=name,
        )
    value = getattr(importlib.import_module(f"lamina.layers.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
