"""Networks for other tools: photos.py is the whole way from pixels to descriptors as one module, exporting.py writes it
as ONNX, for torch.export, or as a state dict."""

from typing import Literal

ExportFormat = Literal["onnx", "torch-export", "state-dict"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = ("onnx", "torch-export", "state-dict")
