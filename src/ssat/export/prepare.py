"""How a stranger makes the network's input of a picture: the rule in words, and Pillow code that does it."""

from __future__ import annotations

from typing import Any

COLOURS = {1: "grey", 3: "in colour"}  # by data.channels


def has_code(given: dict[str, Any]) -> bool:
    """Whether Pillow reads such pictures: images of 8 bits, grey or in colour.

    Args:
        given: the preprocessing of model.json.
    """
    return "frames" not in given and given["channels"] in COLOURS and not given["value_range"]


def rule(given: dict[str, Any]) -> str:
    """The sentences of an image's preprocessing, with what is rounded and how."""
    resize, crop = given["resize"], given["crop"]
    colours = COLOURS.get(given["channels"], "all channels")
    lines = [
        f"Resize the short side to {resize} pixels ({given['interpolation']}, antialiased) and the long side to"
        f" floor({resize} * long / short), then crop the centre to {crop} x {crop}: the crop begins at"
        f" round((width - {crop}) / 2), round((height - {crop}) / 2), halves to the even number; {colours}."
    ]
    if given["value_range"]:
        low, high = given["value_range"]
        lines.append(f"Before that the values from {low:g} to {high:g} become 0 to 255; others are cut off there.")
    lines.append(f"Scale 0 to 255 to [0, 1], subtract mean {given['mean']}, divide by std {given['std']}.")
    if has_code(given):
        lines.append(
            "`prepare` above does this. The pictures are upright (EXIF); lay transparent ones over white first. JPEG"
            " decoders differ by a few levels."
        )
    return "\n".join(lines)


def code(given: dict[str, Any]) -> str:
    """Python lines that define `prepare(path)`: a float32 NumPy array (1, C, H, W)."""
    crop, grey = given["crop"], given["channels"] == 1
    values = "numpy.asarray(image, numpy.float32)" + ("[..., None]" if grey else "") + " / 255"
    box = f"(left, top, left + {crop}, top + {crop})"
    return (
        "import numpy\nfrom PIL import Image, ImageOps\n\n\n"
        "def prepare(path):\n"
        '    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")\n'
        f"    width, height = ({given['resize']} * side // min(image.size) for side in image.size)\n"
        f"    left, top = round((width - {crop}) / 2), round((height - {crop}) / 2)\n"
        f"    image = image.resize((width, height), Image.Resampling.{given['interpolation'].upper()}).crop({box})\n"
        + ('    image = image.convert("L")\n' if grey else "")
        + f"    values = ({values} - {given['mean']}) / {given['std']}\n"
        "    return values.transpose(2, 0, 1)[None].astype(numpy.float32)\n"
    )


def start(facts: dict[str, Any], *, tensor: bool) -> str:
    """Lines that end with `images`, made of a file where Pillow reads it; else a comment says what `images` is.

    Args:
        facts: of model.json.
        tensor: of PyTorch, else an array of NumPy.
    """
    if not has_code(facts["preprocessing"]):
        kind = "torch.tensor" if tensor else "numpy.array"
        return f"images = ...  # float32 {kind}, {' x '.join(map(str, facts['input']['shape']))}, see Input\n"
    made = 'prepare("photo.jpg")'
    return f"{code(facts['preprocessing'])}\n\nimages = {f'torch.from_numpy({made})' if tensor else made}\n"


def answer(facts: dict[str, Any]) -> str:
    """Lines that print what `logits` (1, K) say of the one image."""
    names = 'json.loads(Path("model.json").read_bytes())["classes"]'
    if facts.get("multi_label"):
        return f"print([name for name, logit in zip({names}, logits[0]) if logit > 0])  # above probability 0.5"
    return f"print({names}[int(logits[0].argmax())])"
