"""Encoders by the short name that `encoder.kind` gives them; docs/extend.md says how to add one."""

ENCODERS = {
    "vit": "ssat.encoders.vit:VisionTransformer",
    "timm": "ssat.encoders.timm_vit:TimmVisionTransformer",
    "sl_vit": "ssat.encoders.sl_vit:sl_vit",
    "cct": "ssat.encoders.cct:CompactTransformer",
    "cvt": "ssat.encoders.cvt:ConvolutionalVisionTransformer",
    "swin": "ssat.encoders.swin:SwinTransformer",
    "resnet": "ssat.encoders.resnet:ResNet",
    "resnet_cifar": "ssat.encoders.resnet_cifar:CifarResNet",
    "videomae": "ssat.encoders.videomae:VideoTransformer",
}
