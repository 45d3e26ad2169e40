"""The algorithms of ULTRON a second time, as their pseudo-code reads: loops over photos, channels and positions, in
float64.

Maps are (B, C, H, W) for CDConv and pooling, (B, H, W, C) for SCALA. `weights` are state dicts of the modules as NumPy
arrays.
"""

import math
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]


def weights_of(module: Any) -> Weights:
    """A module's state dict as float64 arrays."""
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def literal_importance(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Algorithm 1, step 1: a (B, C). weight: (1, 1, k) of ECA."""
    n_photos, n_channels, height, width = features.shape
    kernel = weight[0, 0]
    importance = np.zeros((n_photos, n_channels))
    for b in range(n_photos):
        average = [
            sum(float(features[b, c, y, x]) for y in range(height) for x in range(width)) / (height * width)
            for c in range(n_channels)
        ]
        for c in range(n_channels):
            total = 0.0
            for i, tap in enumerate(kernel):
                neighbour = c + i - len(kernel) // 2
                if 0 <= neighbour < n_channels:
                    total += tap * average[neighbour]
            importance[b, c] = sigmoid(total)
    return importance


def literal_quantile(values: list[float], level: float) -> float:
    """Linear interpolation between the two nearest ranks."""
    ordered = sorted(values)
    at = level * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def literal_depthwise(plane: np.ndarray, kernel: np.ndarray, dilation: int) -> np.ndarray:
    """One channel (H, W) with its 3x3 kernel, padding = dilation."""
    height, width = plane.shape
    output = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for i in range(3):
                for j in range(3):
                    row, column = y + (i - 1) * dilation, x + (j - 1) * dilation
                    if 0 <= row < height and 0 <= column < width:
                        output[y, x] += kernel[i, j] * plane[row, column]
    return output


def literal_cdconv(
    features: np.ndarray,
    weights: Weights,
    thresholds: tuple[float, float],
    kind: str,
    deltas: tuple[int, int],
    gate: str,
) -> np.ndarray:
    """Algorithm 1: per photo and channel, the branch by its importance, then the convolution."""
    importance = literal_importance(features, weights["importance.weight"])
    output = np.zeros_like(features)
    for b in range(features.shape[0]):
        tau1, tau2 = thresholds
        if kind == "quantile":
            tau1, tau2 = (literal_quantile(list(importance[b]), level) for level in thresholds)
        for c in range(features.shape[1]):
            a = importance[b, c]
            if a > tau1:
                dilation = 1
            elif a > tau2:
                dilation = deltas[0]
            else:
                dilation = deltas[1]
            output[b, c] = literal_depthwise(features[b, c], weights["weight"][c, 0], dilation) * (
                a if gate == "multiply" else 1.0
            )
    return output


def literal_norm(features: np.ndarray, weights: Weights, prefix: str, eps: float = 1e-5) -> np.ndarray:
    """BatchNorm with its running statistics, (B, C, H, W)."""
    output = np.zeros_like(features)
    for c in range(features.shape[1]):
        sd = math.sqrt(weights[f"{prefix}running_var"][c] + eps)
        output[:, c] = (features[:, c] - weights[f"{prefix}running_mean"][c]) / sd * weights[f"{prefix}weight"][
            c
        ] + weights[f"{prefix}bias"][c]
    return output


def literal_pointwise(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """1x1 convolution, (B, C, H, W)."""
    output = np.zeros((features.shape[0], weight.shape[0], *features.shape[2:]))
    for target in range(weight.shape[0]):
        for source in range(weight.shape[1]):
            output[:, target] += weight[target, source, 0, 0] * features[:, source]
    return output


def part(weights: Weights, prefix: str) -> Weights:
    """The weights whose names begin so, without the beginning."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def literal_mobile_block(features: np.ndarray, weights: Weights, **cdconv: Any) -> np.ndarray:
    """Inverted residual with CDConv in the middle."""
    wide = np.clip(literal_norm(literal_pointwise(features, weights["expand.weight"]), weights, "expand.norm."), 0, 6)
    wide = literal_cdconv(wide, part(weights, "depthwise."), **cdconv)
    wide = np.clip(literal_norm(wide, weights, "norm."), 0, 6)
    return features + literal_norm(literal_pointwise(wide, weights["project.weight"]), weights, "project.norm.")


def literal_linear(vector: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return np.array(
        [
            sum(weights[f"{name}.weight"][i] * vector) + weights[f"{name}.bias"][i]
            for i in range(len(weights[f"{name}.bias"]))
        ]
    )


def literal_mck(features: np.ndarray, weights: Weights) -> np.ndarray:
    """MCK: Proj1x1(concat(X, DC(X, 1), DC(X, 2), DC(X, 3))), (B, H, W, C).

    DC has a bias where the weights have one.
    """
    n_photos, height, width, n_channels = features.shape
    output = np.zeros_like(features)
    for b in range(n_photos):
        planes = [features[b, :, :, c] for c in range(n_channels)]
        for dilation in (1, 2, 3):
            planes += [
                literal_depthwise(features[b, :, :, c], weights[f"convolutions.{dilation - 1}.weight"][c, 0], dilation)
                + weights.get(f"convolutions.{dilation - 1}.bias", np.zeros(n_channels))[c]
                for c in range(n_channels)
            ]
        for y in range(height):
            for x in range(width):
                output[b, y, x] = literal_linear(np.array([plane[y, x] for plane in planes]), weights, "projection")
    return output


def literal_window(position: int, length: int, window: int) -> range:
    """The positions of one axis that a position attends to: centred, moved inward at the borders, the whole of a short
    axis."""
    if length <= window:
        return range(length)
    start = position - window // 2
    start = max(start, 0)
    start = min(start, length - window)
    return range(start, start + window)


def literal_scala(features: np.ndarray, weights: Weights, n_heads: int, window: int, mck_on: str) -> np.ndarray:
    """Algorithm 2 without dropout, (B, H, W, C): every head of every position looks at its window."""
    n_photos, height, width, n_channels = features.shape
    dim = n_channels // n_heads
    projected = np.zeros((n_photos, height, width, 3 * n_channels))
    for b in range(n_photos):
        for y in range(height):
            for x in range(width):
                projected[b, y, x] = literal_linear(features[b, y, x], weights, "query_key_value")
    query, key, value = (projected[..., i * n_channels : (i + 1) * n_channels] for i in range(3))
    if mck_on == "key":
        key = literal_mck(key, part(weights, "context."))
    elif mck_on == "query":
        query = literal_mck(query, part(weights, "context."))
    output = np.zeros_like(features)
    for b in range(n_photos):
        for y in range(height):
            for x in range(width):
                attended = np.zeros(n_channels)
                for head in range(n_heads):
                    own = slice(head * dim, (head + 1) * dim)
                    near = [(i, j) for i in literal_window(y, height, window) for j in literal_window(x, width, window)]
                    scores = [
                        sum(query[b, y, x, own] * key[b, i, j, own]) / math.sqrt(dim)
                        + weights["position_bias"][head, i - y + window - 1, j - x + window - 1]
                        for i, j in near
                    ]
                    exponentials = [math.exp(score) for score in scores]
                    for share, (i, j) in zip(exponentials, near, strict=True):
                        attended[own] += share / sum(exponentials) * value[b, i, j, own]
                output[b, y, x] = literal_linear(attended, weights, "projection")
    return output


def literal_layer_norm(vector: np.ndarray, weights: Weights, name: str, eps: float = 1e-5) -> np.ndarray:
    mean = sum(vector) / len(vector)
    variance = sum((vector - mean) ** 2) / len(vector)
    return (vector - mean) / math.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def at_each_position(features: np.ndarray, function: Any) -> np.ndarray:
    """function of each vector of (B, H, W, C)."""
    return np.array([[[function(vector) for vector in row] for row in photo] for photo in features])


def literal_scala_block(features: np.ndarray, weights: Weights, n_heads: int, window: int, mck_on: str) -> np.ndarray:
    """x + SCALA(Norm(x)), then x + MLP(Norm(x))."""

    def mlp(vector: np.ndarray) -> np.ndarray:
        hidden = literal_linear(literal_layer_norm(vector, weights, "mlp_norm"), weights, "mlp.0")
        gelu = np.array([0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0))) for value in hidden])
        return literal_linear(gelu, weights, "mlp.2")

    normalised = at_each_position(features, lambda vector: literal_layer_norm(vector, weights, "attention_norm"))
    features = features + literal_scala(normalised, part(weights, "attention."), n_heads, window, mck_on)
    return features + at_each_position(features, mlp)


def literal_attention_pooling(
    feature_map: np.ndarray, weights: Weights, gem_p: float, exponent: float, shift: str, eps: float = 1e-6
) -> np.ndarray:
    """q = Wq GeM(X); A = softmax(K^T q / sqrt(C)); f^-1(f(V) A) with f(V) = (V - min V + eps)^gamma. (B, C, H, W) ->
    (B, C).

    shift: "left" takes the root only, as SimPool's code; "undone" is the whole inverse of f. SimPool's beta is added
    where the weights have one.
    """
    n_photos, n_channels, height, width = feature_map.shape
    pooled = np.zeros((n_photos, n_channels))
    for b in range(n_photos):
        positions = [feature_map[b, :, y, x] for y in range(height) for x in range(width)]
        gem = np.array(
            [
                (sum(max(float(v[c]), 1e-6) ** gem_p for v in positions) / len(positions)) ** (1.0 / gem_p)
                for c in range(n_channels)
            ]
        )
        query = weights["query.weight"] @ gem
        values = [literal_layer_norm(vector, weights, "norm", 1e-6) for vector in positions]
        scores = [float(query @ (weights["key.weight"] @ vector)) / math.sqrt(n_channels) for vector in values]
        exponentials = [math.exp(score) for score in scores]
        least = min(float(vector.min()) for vector in values)
        for c in range(n_channels):
            total = sum(
                share / sum(exponentials) * (float(v[c]) - least + eps) ** exponent
                for share, v in zip(exponentials, values, strict=True)
            )
            pooled[b, c] = total ** (1.0 / exponent) + (least - eps if shift == "undone" else 0.0)
            pooled[b, c] += float(weights.get("beta", np.zeros(())))
    return pooled
