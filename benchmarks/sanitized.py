"""Runs every CUDA kernel once, forward and backward, for compute-sanitizer (see gpu_check.py).

    python benchmarks/sanitized.py [--device cpu]      the CPU's, to see that it runs

The shapes are small and odd; attention has a bias and dropout.
"""

import argparse

import torch
from ultron_kernels import cdconv, scala_attention

SHAPES = [((1, 1, 1, 1, 8), 3), ((1, 5, 3, 2, 24), 7), ((1, 13, 18, 1, 32), 7), ((1, 9, 10, 1, 128), 13)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    device = parser.parse_args().device
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for shape, k in SHAPES:
            tensors = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
            bias = torch.randn(shape[3], 2 * k - 1, 2 * k - 1, device=device, requires_grad=True)
            scala_attention(
                *tensors, bias, kernel_size=k, dropout_p=0.2, backend=device
            ).float().square().sum().backward()
        for order in (torch.contiguous_format, torch.channels_last):
            input = (
                torch.randn(2, 5, 9, 11, device=device, dtype=dtype).contiguous(memory_format=order).requires_grad_()
            )
            weight = torch.randn(5, 1, 3, 3, device=device, dtype=dtype, requires_grad=True)
            cdconv(
                input, weight, torch.randint(1, 7, (2, 5), device=device), backend=device
            ).float().square().sum().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    print("all kernels ran")


if __name__ == "__main__":
    main()
