"""The page: gradio's parts and what happens between them."""

from __future__ import annotations

import functools
import html
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ssat.commands.demo.answers import Answers
from ssat.core.errors import UserError
from ssat.training.reconstructor import usual_ratio

SHOWN = 5  # classes with a bar
LISTED = 200  # class names on the page
LOOPBACK = "127.0.0.1"
STYLE = """
.gradio-container { max-width: 1100px !important; margin: 0 auto !important; }
.ssat-facts { color: var(--body-text-color-subdued); font-size: 0.9em; }
.ssat-photo img { width: 100%; height: 100%; object-fit: contain; }
[data-testid="status-tracker"]:has(.error) { display: none !important; }  /* the sentence says it */
.ssat-facts p { margin: 0.15em 0; overflow-wrap: anywhere; }
"""
# The browser itself refuses any other machine's address, whatever a part of the page asks for.
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
    b" img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:;"
    b" worker-src 'self' blob:; frame-src 'none'; form-action 'self'"
)
Result = TypeVar("Result")


def import_gradio(folder: Path) -> Any:
    """The library, told to send nothing and to keep what is uploaded in `folder`.

    Raises:
        UserError: it is not installed.
    """
    # It reads them when it is imported and when a part of a page is made.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": str(folder)}
    try:
        import gradio
    except ImportError:
        raise UserError('the demo needs the library gradio, which is not installed: pip install "ssat[demo]"') from None
    return gradio


class OnlyHere:
    """ASGI middleware that adds `POLICY` to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY)]
            await send(message)

        await self._app(scope, receive, with_policy if scope["type"] == "http" else send)


def told(gradio: Any, function: Callable[..., Result]) -> Callable[..., Result]:
    """`function`, whose user's mistakes are sentences in the page."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Result:
        try:
            return function(*args)
        except UserError as error:
            # A file's name is no HTML.
            raise gradio.Error(
                html.escape(str(error)), title="Not possible", duration=None, print_exception=False
            ) from None

    return wrapped


def build(gradio: Any, answers: Answers, facts: Sequence[str], examples: Sequence[Path], folder: Path) -> Any:
    """The page.

    Args:
        gradio: the library.
        answers: of the network.
        facts: lines below the title: what it is, what it has measured, what a score is worth.
        examples: image files to choose from.
        folder: of what is uploaded, and of the examples.
    """
    model, decoder = answers.model, answers.decoder
    names = [html.escape(name) for name in model.classes[:LISTED]]
    names += [f"and {len(model.classes) - LISTED:,} more"] * (len(model.classes) > LISTED)

    def predict(image: Any) -> Any:
        """Probabilities of the classes, and the heat map where there is one."""
        path = path_of(image, folder)
        if path is None:
            return None if answers.without_heat else (None, None)
        said = answers.classes(path)
        return said if answers.without_heat else (said, answers.heat(path))

    def reconstruct(image: Any, ratio: float, draw: float) -> tuple[Any, Any]:
        """The image with a share of its patches hidden, and with these predicted."""
        path = path_of(image, folder)
        return (None, None) if path is None else answers.reconstruction(path, ratio, int(draw))

    def reconstruct_quietly(image: Any, ratio: float, draw: float) -> tuple[Any, Any]:
        """After `predict`, which has said what is wrong with the image."""
        try:
            return reconstruct(image, ratio, draw)
        except UserError:
            return None, None

    with gradio.Blocks(title=f"SSAT: {model.saved.name}", analytics_enabled=False) as page:
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in facts)
        gradio.HTML(f"<h1>{html.escape(model.saved.name)}</h1><div class='ssat-facts'>{lines}</div>")
        picture = {"interactive": False, "format": "png", "buttons": ["download", "fullscreen"], "height": 300}
        with gradio.Row():
            with gradio.Column():
                photo = gradio.Image(
                    type="filepath",
                    label="image",
                    sources=["upload", "clipboard"],
                    height=300,
                    buttons=[],
                    elem_classes="ssat-photo",
                )
                if examples:
                    files = [[str(path)] for path in examples]
                    gradio.Examples(files, photo, label="or one of the run's test images", api_visibility="private")
            with gradio.Column():
                found = gradio.Label(label="classes", num_top_classes=min(SHOWN, len(names)))
                shown = [found]
                if not answers.without_heat:
                    shown.append(gradio.Image(label="Grad-CAM: what speaks for the first class", **picture))
        rebuilding: list[Any] = []
        if decoder is not None:
            with gradio.Row():
                hidden = gradio.Image(label="hidden patches", **picture)
                rebuilding += [hidden, gradio.Image(label="reconstructed", **picture)]
            with gradio.Row():
                ratio = gradio.Slider(
                    decoder.ratios[0],
                    decoder.ratios[-1],
                    usual_ratio(decoder.ratios),
                    step=0.05,
                    label="share of hidden patches",
                )
                draw = gradio.Number(0, label="mask", precision=0, visible="hidden")
                again = gradio.Button("another mask")
        with gradio.Accordion(f"{len(model.classes):,} classes", open=False):
            gradio.HTML(f"<p>{', '.join(names)}</p>")
        missing = [("heat map", answers.without_heat), ("reconstruction", answers.without_decoder)]
        notes = [f"No {what}: {html.escape(why)}." for what, why in missing if why]
        if decoder is not None and decoder.phase != model.saved.phase.name:
            notes.append(f"The decoder is of phase {html.escape(decoder.phase)}, before the labels were learned.")
        if decoder is not None and decoder.task.norm_pix:
            notes.append("The decoder predicts normalised patches: brightness and contrast are the original's.")
        if notes:
            gradio.HTML("<div class='ssat-facts'>" + "".join(f"<p>{note}</p>" for note in notes) + "</div>")

        # The file as it is: the library would decode it its own way, and fail on a bad one without a sentence.
        quiet = {"show_progress": "hidden", "preprocess": False}
        parts = [*shown, *rebuilding]
        # Not emptied before: what waited for that answer would read the next image, and say its mistake twice.
        said = photo.change(told(gradio, predict), photo, shown, api_name="predict", **quiet)
        said.failure(lambda: [None] * len(parts), None, parts, api_visibility="private", **quiet)
        if decoder is not None:
            with_mask = {
                "fn": told(gradio, reconstruct),
                "inputs": [photo, ratio, draw],
                "outputs": rebuilding,
                **quiet,
            }
            ratio.release(**with_mask, api_name="reconstruct")  # the first of a name has it
            said.success(**with_mask | {"fn": reconstruct_quietly}, api_visibility="private")
            counted = again.click(lambda number: number + 1, draw, draw, api_visibility="private", **quiet)
            counted.then(**with_mask, api_visibility="private")
    return page


def path_of(payload: Any, folder: Path) -> str | None:
    """The uploaded file, which must lie in `folder`; None where the image was taken away.

    Raises:
        UserError: it lies elsewhere: a page of a stranger must not name files of this machine.
    """
    if payload is None:
        return None
    path = Path(str(payload.get("path") if isinstance(payload, dict) else payload.path))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"the image {path.name} was not uploaded: drop it on the page")
    return str(path)


def launch(page: Any, port: int, folder: Path, *, opens: bool) -> str:
    """Serve the page until it is closed; returns its address.

    Args:
        page: of `build`.
        port: a free one.
        folder: of the examples.
        opens: whether to open it in the browser.

    Raises:
        UserError: another program took the port just now.
    """
    from starlette.middleware import Middleware

    try:
        _, address, _ = page.launch(
            server_name=LOOPBACK,
            server_port=port,
            share=False,
            inbrowser=opens,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            footer_links=[],
            allowed_paths=[str(folder)],
            app_kwargs={"middleware": [Middleware(OnlyHere)]},
            css=STYLE,
        )
    except OSError as error:
        raise UserError(f"port={port} cannot be used ({error}): name another, or port=0 for a free one") from error
    return str(address)
