"""What the site has beyond docs/*.md: its home, which is README.md, the linked files of the repository, the API."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()\.\./([\w./-]+?)(?=[)#])")  # of a page in docs/ to a file outside of it

# The modules that a program of one's own uses, by the title of their page.
API = {
    "trained networks": ("ssat.model",),
    "encoders": ("ssat.encoders.base", "ssat.encoders.layers"),
    "tasks": ("ssat.tasks.base", "ssat.core.batch"),
    "data": ("ssat.data.image", "ssat.data.sets.sources"),
    "training": ("ssat.training.module",),
    "analyses": ("ssat.analysis.figures", "ssat.analysis.models"),
    "configuration": ("ssat.config.schema",),
    "errors": ("ssat.core.errors",),
}


def api_pages() -> dict[str, str]:
    """Markdown of the pages of the API, by path."""
    return {
        f"api/{title.replace(' ', '_')}.md": "\n\n".join(
            [f"# {title.capitalize()}", *(f"::: {name}" for name in modules)]
        )
        for title, modules in API.items()
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API to the navigation."""
    config.nav.append({"API": list(api_pages())})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home, the API and every file of the repository that a page links."""
    home = (ROOT / "README.md").read_text().replace("](docs/", "](").replace("](SECURITY", "](files/SECURITY")
    texts = {"index.md": home, **api_pages()}
    for page in sorted(Path(config.docs_dir).rglob("*.md")):
        for name in LINK.findall(page.read_text()):
            texts[f"files/{name}"] = (ROOT / name).read_text().replace("](docs/", "](../")
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to the copies of their files."""
    return markdown if page.file.src_uri.startswith("files/") else LINK.sub(r"files/\1", markdown)
