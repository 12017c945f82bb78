"""A trained network as files for other programs: safetensors, timm, ONNX, torch.export."""
