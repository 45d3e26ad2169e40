"""The losses without class weights as their papers write them: one loop per sum, on Python numbers of torch, so that
autograd gives their gradients. x: list of unit descriptors of the batch; refs: the same and then those of the memory;
y, ry: their labels."""

import torch
from torch import Tensor


def d(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum().sqrt()


def positives(i: int, y: list[int], ry: list[int]) -> list[int]:
    return [j for j in range(len(ry)) if j != i and ry[j] == y[i]]


def negatives(i: int, y: list[int], ry: list[int]) -> list[int]:
    return [j for j in range(len(ry)) if ry[j] != y[i]]


def mean_of_positive(terms: list[Tensor]) -> Tensor:
    terms = [term for term in terms if term > 0]
    return torch.stack(terms).mean() if terms else torch.zeros(())


def contrastive(x: list[Tensor], y: list[int], refs: list[Tensor], ry: list[int], margin: float) -> Tensor:
    near, far = [], []
    for i in range(len(x)):
        near += [0.5 * d(x[i], refs[p]) ** 2 for p in positives(i, y, ry)]
        far += [0.5 * max(torch.zeros(()), margin - d(x[i], refs[n])) ** 2 for n in negatives(i, y, ry)]
    return mean_of_positive(near) + mean_of_positive(far)


def triplet(x: list[Tensor], y: list[int], refs: list[Tensor], ry: list[int], margin: float, mining: str) -> Tensor:
    terms = []
    for i in range(len(x)):
        pos = [d(x[i], refs[p]) for p in positives(i, y, ry)]
        neg = [d(x[i], refs[n]) for n in negatives(i, y, ry)]
        if mining == "batch-hard":
            terms.append(max(pos) - min(neg) + margin)
        else:
            terms += [p - n + margin for p in pos for n in neg if p < n < p + margin]
    return mean_of_positive(terms)


def multi_similarity(
    x: list[Tensor],
    y: list[int],
    refs: list[Tensor],
    ry: list[int],
    alpha: float,
    beta: float,
    base: float,
    epsilon: float,
) -> Tensor:
    total = torch.zeros(())
    for i in range(len(x)):
        s = [x[i] @ r for r in refs]
        P, N = positives(i, y, ry), negatives(i, y, ry)
        least, most = min(s[p] for p in P), max(s[n] for n in N)
        P, N = [p for p in P if s[p] - epsilon < most], [n for n in N if s[n] + epsilon > least]
        pull = sum((torch.exp(-alpha * (s[p] - base)) for p in P), torch.zeros(()))
        push = sum((torch.exp(beta * (s[n] - base)) for n in N), torch.zeros(()))
        total = total + torch.log(1 + pull) / alpha + torch.log(1 + push) / beta
    return total / len(x)


def ntxent(x: list[Tensor], y: list[int], refs: list[Tensor], ry: list[int], temperature: float) -> Tensor:
    terms = []
    for i in range(len(x)):
        e = [torch.exp(x[i] @ r / temperature) for r in refs]
        rest = sum(e[n] for n in negatives(i, y, ry))
        terms += [-torch.log(e[p] / (e[p] + rest)) for p in positives(i, y, ry)]
    return torch.stack(terms).mean()


def smooth_ap(x: list[Tensor], y: list[int], refs: list[Tensor], ry: list[int], temperature: float) -> Tensor:
    losses = []
    for i in range(len(x)):
        s, P = [x[i] @ r for r in refs], positives(i, y, ry)
        ap = torch.zeros(())
        for p in P:
            ahead = {j: torch.sigmoid((s[j] - s[p]) / temperature) for j in range(len(refs)) if j not in (i, p)}
            ap = ap + (1 + sum(ahead[j] for j in P if j != p)) / (1 + sum(ahead.values())) / len(P)
        losses.append(1 - ap)
    return torch.stack(losses).mean()


def fastap(x: list[Tensor], y: list[int], refs: list[Tensor], ry: list[int], bins: int) -> Tensor:
    losses = []
    width = 4 / bins

    def histogram(i: int, places: list[int]) -> list[Tensor]:
        return [
            sum(
                (max(torch.zeros(()), 1 - abs(d(x[i], refs[j]) ** 2 - width * b) / width) for j in places),
                torch.zeros(()),
            )
            for b in range(bins + 1)
        ]

    for i in range(len(x)):
        pos, every = histogram(i, positives(i, y, ry)), histogram(i, positives(i, y, ry) + negatives(i, y, ry))
        ap = torch.zeros(())
        for b in range(bins + 1):
            if pos[b] > 0:
                ap = ap + pos[b] * sum(pos[: b + 1]) / sum(every[: b + 1])
        losses.append(1 - ap / len(positives(i, y, ry)))
    return torch.stack(losses).mean()
