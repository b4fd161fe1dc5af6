"""Links in what is proxied: a page that says `/style.css` means its own server, and is found under the proxy's path.

In: an HTML page or a redirect's target, and the path under which its server is shown.  Out: the same with its absolute
paths led through the proxy: those of start tags' attributes that hold URLs, as Kubernetes' proxy does it; comments,
scripts, styles and everything else are passed byte for byte. Linear in the page's length.
"""

from __future__ import annotations

import gzip
import posixpath
import re
import zlib
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from navarch.records import frozen

# A page beyond this is passed on as it is.
LONGEST_PAGE: Final = 16 << 20

_ATTRIBUTES: Final = {
    "a": {"href"},
    "applet": {"codebase"},
    "area": {"href"},
    "audio": {"src"},
    "base": {"href"},
    "blockquote": {"cite"},
    "body": {"background"},
    "button": {"formaction"},
    "command": {"icon"},
    "del": {"cite"},
    "embed": {"src"},
    "form": {"action"},
    "frame": {"longdesc", "src"},
    "head": {"profile"},
    "html": {"manifest"},
    "iframe": {"longdesc", "src"},
    "img": {"longdesc", "src", "usemap"},
    "input": {"src", "usemap", "formaction"},
    "ins": {"cite"},
    "link": {"href"},
    "object": {"classid", "codebase", "data", "usemap"},
    "q": {"cite"},
    "script": {"src"},
    "source": {"src"},
    "video": {"poster", "src"},
}
# Elements whose content is text, whatever it looks like.
_TEXT_ONLY: Final = frozenset(
    {"iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"}
)
_NAME: Final = re.compile(r"[a-zA-Z][^\s/>]*", re.ASCII)
_ATTRIBUTE: Final = re.compile(r"""[\s/]*([^\s/>=][^\s/>=]*)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s>"'][^\s>]*)?)?""", re.ASCII)


@frozen
class Proxied:
    """Where a page came from (`source_host`), how the client names this server (`request_host`), and the path that
    stands for the page's server."""

    source_host: str
    request_host: str
    prefix: str

    def forwarded(self, path: str, before: str, client: str) -> dict[str, str]:
        """What the proxied server is told of the request that the client made, by whom after those `before`."""
        told = {"X-Forwarded-Uri": self.prefix + path, "X-Forwarded-Proto": "https"}
        if self.request_host:
            told["X-Forwarded-Host"] = self.request_host
        if client:
            told["x-forwarded-for"] = f"{before}, {client}" if before else client
        return told

    def url(self, text: str) -> str:
        """A link of the page as the client can follow it."""
        try:
            url = urlsplit(text)
        except ValueError:
            return text
        other = bool(url.netloc) and url.netloc not in (self.source_host, self.request_host)
        if other or not url.path.startswith("/"):
            return text
        scheme, host = ("", "") if url.netloc != self.request_host else (url.scheme, url.netloc)
        path = url.path
        if not path.startswith(self.prefix):
            path = posixpath.normpath(f"{self.prefix}/{path}".replace("//", "/"))
            if url.path.endswith("/") and not path.endswith("/"):
                path += "/"
        return urlunsplit((scheme, host, path, url.query, url.fragment))

    def page(self, body: bytes, encoding: str) -> bytes | None:
        """A page, in the encoding in which it came; None for one in an encoding that is not known here, or that is far
        larger than it looks.  Raises zlib.error."""
        if encoding == "gzip":
            plain = _inflated(body, zlib.MAX_WBITS | 16)
            return None if plain is None else gzip.compress(self._html(plain), 6)
        if encoding == "deflate":
            plain = _inflated(body, zlib.MAX_WBITS)
            return None if plain is None else zlib.compress(self._html(plain))
        return self._html(body) if encoding in ("", "identity") else None

    def _html(self, body: bytes) -> bytes:
        # Bytes one by one as characters: what is not ASCII passes as it is, whatever the page's charset.
        text = body.decode("latin-1")
        done: list[str] = []
        at = 0
        while True:
            tag = text.find("<", at)
            if tag < 0:
                break
            done.append(text[at:tag])
            at = self._markup(text, tag, done)
        done.append(text[at:])
        return "".join(done).encode("latin-1")

    def _markup(self, text: str, at: int, done: list[str]) -> int:
        """What begins with `<` at this place; returns where it ends."""
        if text.startswith("<!--", at):
            return _pass(text, at, "-->", done)
        name = _NAME.match(text, at + 1)
        if name is None:
            if text[at + 1 : at + 2] in ("/", "!", "?"):
                return _pass(text, at, ">", done)
            done.append("<")
            return at + 1
        element = name.group().lower()
        end, parts = self._attributes(text, name.end(), element)
        if end < 0:
            done.append(text[at:])
            return len(text)
        done += [text[at : name.end()], *parts]
        if element in _TEXT_ONLY:
            return _pass_text(text, end, element, done)
        return end

    def _attributes(self, text: str, at: int, element: str) -> tuple[int, list[str]]:
        """The rest of a start tag; its end is negative where there is none."""
        begin, wanted = at, _ATTRIBUTES.get(element, set())
        parts: list[str] = []
        while True:
            found = _ATTRIBUTE.match(text, at)
            if found is None:
                end = text.find(">", at)
                if end < 0 or text[at:end].strip(" \t\r\n\f/"):
                    return -1, []
                if "/" in text[at:end]:
                    # Closes itself: passed on as it is.
                    return end + 1, [text[begin : end + 1]]
                return end + 1, [*parts, text[at : end + 1]]
            value = found.group(2)
            if found.group(1).lower() in wanted and value:
                bare = value[1:-1] if value[0] in "\"'" else value
                parts += [text[at : found.start(2)], '"', _escaped(self.url(_unescaped(bare))), '"']
            else:
                parts.append(found.group())
            at = found.end()


def _inflated(body: bytes, window: int) -> bytes | None:
    stream = zlib.decompressobj(window)
    plain = stream.decompress(body, LONGEST_PAGE)
    return plain if stream.eof else None


def _pass(text: str, at: int, closing: str, done: list[str]) -> int:
    end = text.find(closing, at)
    end = len(text) if end < 0 else end + len(closing)
    done.append(text[at:end])
    return end


def _pass_text(text: str, at: int, element: str, done: list[str]) -> int:
    closing = re.compile(f"</{element}", re.IGNORECASE).search(text, at)
    end = len(text) if closing is None or element == "plaintext" else closing.start()
    done.append(text[at:end])
    return end


def _unescaped(text: str) -> str:
    for entity, character in (("&quot;", '"'), ("&#34;", '"'), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(entity, character)
    return text.replace("&amp;", "&")


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;")
    for character, entity in (("'", "&#39;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;")):
        text = text.replace(character, entity)
    return text
