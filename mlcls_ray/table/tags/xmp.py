"""XMP sidecars: keywords are put in and taken out in place; every other byte of the file stays as it is.

A sidecar holds what other programs know of a picture: ratings, edits, places. So it is not read and written again, which would lose what
a library does not understand: a parser finds the places of the keywords, and only there something is inserted or cut.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from mlcls_ray.table.tags.keywords import Added, Keywords, LeftAloneError, Tagger, missing

RDF, DC, LR = (
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "http://purl.org/dc/elements/1.1/",
    "http://ns.adobe.com/lightroom/1.0/",
)
SUBJECT, HIERARCHICAL = (DC, "dc", "subject"), (LR, "lr", "hierarchicalSubject")
LISTS = tuple(f"{RDF} {name}" for name in ("Bag", "Seq", "Alt"))
MOST_BYTES = 32 * 2**20
NEW = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="mlcls_ray">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about=""/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()
_START_TAG = re.compile(rb"<([^\s/>]+)(?:\"[^\"]*\"|'[^']*'|[^\"'>])*>")
_END_TAG = re.compile(rb"</[^>]*>")


class _Element:
    """An element and its places in the file, in bytes: the whole from `start` to `end`, its content from `inner_start` to `inner_end`."""

    def __init__(self, name: str, attributes: dict[str, str], tag: re.Match[bytes]) -> None:
        self.name = name
        self.attributes = attributes
        self.raw_name = tag[1]
        self.start = tag.start()
        self.inner_start = self.inner_end = self.end = tag.end()
        self.is_empty_tag = tag[0].endswith(b"/>")
        self.children: list[_Element] = []
        self.text = ""


def sidecar_tagger() -> Tagger:
    """Make the tagger of sidecars. It lists each folder of images once."""
    count = lru_cache(maxsize=16)(_count_stems)
    return Tagger(lambda image: find_sidecar(image, count), add_to_sidecar, remove_from_sidecar, keeps_mtime=False)


def find_sidecar(image: Path, count_stems: Callable[[Path], Counter[str]]) -> Path:
    """Name the sidecar of an image: `a.jpg.xmp`; or `a.xmp`, if only that exists and no other file could be meant by it."""
    full, short = image.with_name(f"{image.name}.xmp"), image.with_suffix(".xmp")
    if full.exists() or not short.exists():
        return full
    return short if count_stems(image.parent)[image.stem] == 1 else full


def _count_stems(folder: Path) -> Counter[str]:
    """Count the files of a folder, but for sidecars, by their names without suffix."""
    return Counter(path.stem for path in folder.iterdir() if path.suffix.lower() != ".xmp")


def add_to_sidecar(before: bytes | None, keywords: Keywords) -> tuple[bytes, Added]:
    """Add keywords to a sidecar's `dc:subject` and `lr:hierarchicalSubject`.

    Raises:
        LeftAloneError: the file is not XMP that we understand.
    """
    data, subject = _add(NEW if before is None else before, SUBJECT, keywords.flat)
    data, hierarchical = _add(data, HIERARCHICAL, keywords.hierarchical)
    return data, Added(subject=subject, hierarchical=hierarchical)


def remove_from_sidecar(data: bytes, added: Added) -> bytes:
    """Cut keywords out of a sidecar; a property that is left without any goes with them.

    Raises:
        LeftAloneError: the file is not XMP that we understand.
    """
    return _remove(_remove(data, HIERARCHICAL, added.hierarchical), SUBJECT, added.subject)


def _add(data: bytes, name: tuple[str, str, str], words: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    rdf = _find_rdf(data)
    found = _find_property(rdf, name)
    items = _items(found) if found else None
    new = missing(words, (item.text.strip() for item in items.children) if items else ())
    if not new:
        return data, ()
    if items:
        return _insert(data, items, _list_items(new, items.raw_name, _indentation(data, items))), new
    uri, prefix, local = name
    listed = _list_items(new, b"rdf:Bag", b"\n    ")
    text = (
        f'\n   <{prefix}:{local} xmlns:{prefix}="{uri}" xmlns:rdf="{RDF}">\n   <rdf:Bag>'.encode()
        + listed
        + f"\n   </rdf:Bag>\n   </{prefix}:{local}>".encode()
    )
    place = next(_descriptions(rdf), None)
    if place is None:
        place = rdf
        text = f'<rdf:Description rdf:about="" xmlns:rdf="{RDF}">'.encode() + text + b"</rdf:Description>"
    return _insert(data, place, text), new


def _indentation(data: bytes, items: _Element) -> bytes:
    """Return the blanks before the last keyword of a list."""
    if not items.children:
        return b""
    end = items.children[-2].end if len(items.children) > 1 else items.inner_start
    blanks = data[end : items.children[-1].start]
    return b"" if blanks.strip() else blanks


def _list_items(words: Sequence[str], list_name: bytes, before: bytes = b"") -> bytes:
    """Make `rdf:li` elements, with the list's own prefix."""
    prefix, colon, _ = list_name.rpartition(b":")
    name = prefix + colon + b"li"
    return b"".join(before + b"<" + name + b">" + escape(word).encode() + b"</" + name + b">" for word in words)


def _insert(data: bytes, element: _Element, text: bytes) -> bytes:
    """Insert at the end of an element; `<a/>` becomes `<a>…</a>`."""
    if element.is_empty_tag:
        tag = data[element.start : element.end - 2] + b">"
        return data[: element.start] + tag + text + b"</" + element.raw_name + b">" + data[element.end :]
    at = element.inner_end
    if element.children and not data[element.children[-1].end : at].strip():
        at = element.children[-1].end
    return data[:at] + text + data[at:]


def _remove(data: bytes, name: tuple[str, str, str], words: Sequence[str]) -> bytes:
    found = _find_property(_find_rdf(data), name) if words else None
    if found is None:
        return data
    items, left = _items(found), list(words)
    cut = []
    for item in items.children:
        if item.text in left:
            left.remove(item.text)
            cut.append(item)
    for element in [found] if cut and len(cut) == len(items.children) else reversed(cut):
        data = data[: element.start].rstrip(b" \t\r\n") + data[element.end :]
    return data


def _items(found: _Element) -> _Element:
    if len(found.children) != 1 or found.children[0].name not in LISTS:
        raise LeftAloneError(f"its '{found.raw_name.decode()}' is not a list of keywords")
    return found.children[0]


def _descriptions(rdf: _Element) -> Iterator[_Element]:
    return (child for child in rdf.children if child.name == f"{RDF} Description")


def _find_property(rdf: _Element, name: tuple[str, str, str]) -> _Element | None:
    uri, prefix, local = name
    full = f"{uri} {local}"
    for description in _descriptions(rdf):
        if full in description.attributes:
            raise LeftAloneError(f"its '{prefix}:{local}' is not a list of keywords")
    return next((child for one in _descriptions(rdf) for child in one.children if child.name == full), None)


def _find_rdf(data: bytes) -> _Element:
    if len(data) > MOST_BYTES:
        raise LeftAloneError(f"it is larger than {MOST_BYTES >> 20} MB")
    root = _parse(data)
    for element in (root, *root.children):
        if element.name == f"{RDF} RDF":
            return element
    raise LeftAloneError("it is XML, but not XMP: it has no rdf:RDF")


def _parse(data: bytes) -> _Element:
    """Find the elements of an XML file in UTF-8, without its entities: they could be larger than the file."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    stack: list[_Element] = []
    roots: list[_Element] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        tag = _START_TAG.match(data, parser.CurrentByteIndex)
        if tag is None:
            raise LeftAloneError("it is not in UTF-8")
        element = _Element(name, attributes, tag)
        (stack[-1].children if stack else roots).append(element)
        stack.append(element)

    def end(name: str) -> None:
        element = stack.pop()
        tag = None if element.is_empty_tag else _END_TAG.match(data, parser.CurrentByteIndex)
        if tag is not None:
            element.inner_end, element.end = tag.span()

    def text(characters: str) -> None:
        stack[-1].text += characters

    def check_encoding(version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() != "utf-8":
            raise LeftAloneError("it is not in UTF-8")

    def refuse(*declared: object) -> None:
        raise LeftAloneError("it declares a document type, which XMP has not")

    parser.XmlDeclHandler = check_encoding

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise LeftAloneError(f"it is not XMP: {error}") from None
    return roots[0]
