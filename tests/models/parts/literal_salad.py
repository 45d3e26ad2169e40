"""SALAD of the paper (Izquierdo and Civera, CVPR 2024), equation by equation with loops over numbers; no code of
ultron's."""

import math


def sinkhorn(S, z, n_iterations):
    """Section 3.2. S: n rows of m scores. Returns P, n rows of m + 1: mu = 1_n, nu = (1_m, n - m)."""
    n, m = len(S), len(S[0])
    K = [[math.exp(s) for s in row] + [math.exp(z)] for row in S]
    nu = [1.0] * m + [float(n - m)]
    u, v = [1.0] * n, [1.0] * (m + 1)
    for _ in range(n_iterations):
        v = [nu[j] / sum(K[i][j] * u[i] for i in range(n)) for j in range(m + 1)]
        u = [1.0 / sum(K[i][j] * v[j] for j in range(m + 1)) for i in range(n)]
    return [[u[i] * K[i][j] * v[j] for j in range(m + 1)] for i in range(n)]


def linear(layer, x):
    """W x + b, of a layer's weight and bias as lists; 1 x 1 convolutions too."""
    weight = layer.weight.flatten(1).tolist()
    bias = layer.bias.tolist()
    return [sum(w * value for w, value in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def mlp(first, second, x):
    return linear(second, [max(0.0, value) for value in linear(first, x)])


def unit(x):
    norm = math.sqrt(sum(value * value for value in x))
    return [value / norm for value in x]


def salad(pooling, features):
    """features: n places of C numbers. The global descriptor before its last normalisation: g, then V of equation 7,
    dimension by dimension, clusters within it."""
    n = len(features)
    f = [mlp(pooling.local[0], pooling.local[3], x) for x in features]
    S = [mlp(pooling.score[0], pooling.score[3], x) for x in features]
    P = sinkhorn(S, pooling.dustbin.item(), pooling.iterations)
    m, dim = len(S[0]), len(f[0])
    V = [unit([sum(P[i][j] * f[i][k] for i in range(n)) for k in range(dim)]) for j in range(m)]
    mean = [sum(x[c] for x in features) / n for c in range(len(features[0]))]
    g = unit(mlp(pooling.token[0], pooling.token[2], mean))
    return g + [V[j][k] for k in range(dim) for j in range(m)]
