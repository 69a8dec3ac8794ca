"""What a Markdown file or notebook holds, for tests: links, headings, code, tables."""

import dataclasses
import json
import pathlib
import re
import shlex
import urllib.parse

FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
SHELL_ENDS = {"&&", ";", "|", "||", "&", "do", "done"}


@dataclasses.dataclass
class Block:
    """Fenced or indented code; `language` is what stands behind the fence, "" of an indented one."""

    language: str
    text: str


class Document:
    """A file's text without code, and its code apart."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        text = path.read_text(encoding="utf-8")
        self.blocks = []
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
            cells = [source for kind, source in sources if kind == "code"]
            self.blocks += [Block("file" if cell.startswith("%%writefile") else "notebook", cell) for cell in cells]
            text = "\n\n".join(source for kind, source in sources if kind == "markdown")
        for indent, _, language, code in FENCE.findall(text):
            self.blocks.append(Block(language.strip(), re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)))
        text = FENCE.sub("", text)
        indented = re.findall(r"(?:(?<=\n\n)|\A)((?:    (?![-*0-9]).*\n+)+)", text)
        self.blocks += [Block("", re.sub(r"^    ", "", code, flags=re.MULTILINE)) for code in indented]
        self.text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)

    @property
    def spans(self):
        """Code inside the text."""
        return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", self.text)

    @property
    def links(self):
        """The targets of links and pictures."""
        text = re.sub(r"`[^`\n]*`", "", self.text)
        inline = re.findall(r"\]\(\s*<?([^()\s>]+)>?[^()]*\)", text)
        return (
            inline
            + re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
            + re.findall(r'(?:src|href)="([^"]+)"', text)
        )

    @property
    def relative_links(self):
        """(path, anchor) of links to files; the path is None for a link inside the document."""
        found = []
        for link in self.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            found.append((self.path.parent / urllib.parse.unquote(path) if path else None, anchor))
        return found

    @property
    def anchors(self):
        """The names that GitHub and MyST give to the headings."""
        headings = re.findall(r"^#{1,6} +(.+?) *$", self.text, re.MULTILINE)
        return {slug(heading) for heading in headings}

    @property
    def commands(self):
        """Words of every `mrcnn-tf` command in shell code, from the word behind it on."""
        shell = [block.text for block in self.blocks if block.language in ("bash", "sh")]
        plain = "\n".join(block.text for block in self.blocks if not block.language)  # a drawing, too, may name us
        shell += re.findall(r"^mrcnn-tf .*(?:\\\n.*)*", plain, re.MULTILINE)
        shell += [line[1:] for block in self.blocks if block.language == "notebook" for line in _escaped(block.text)]
        return [words for text in shell for words in commands(text)]

    def tables(self):
        """Lists of rows, the heading first, each a list of cells."""
        found = []
        for lines in re.findall(r"(?:^\|.*\|\s*?$\n?)+", self.text, re.MULTILINE):
            rows = [
                [cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines.strip().splitlines()
            ]
            found.append([rows[0], *rows[2:]])
        return found


def slug(heading):
    """As GitHub makes an anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def commands(text):
    """Words of every `mrcnn-tf` command in a shell script, from the word behind it on."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quote that ends on another line
            continue
        starts = [place for place, word in enumerate(words) if word.rpartition("/")[2] == "mrcnn-tf"]
        for start in starts:
            stop = next((place for place in range(start, len(words)) if words[place] in SHELL_ENDS), len(words))
            found.append(words[start + 1 : stop])
    return found


def _escaped(cell):
    """Lines of a notebook's cell that its shell gets."""
    joined = re.sub(r"\\\n\s*", " ", cell)
    return [line.strip() for line in joined.splitlines() if line.strip().startswith(("!", "%"))]
