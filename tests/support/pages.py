"""Pages: the documentation taken apart into commands, Python and data, for tests to run.

A block of code is indented by four spaces or fenced, in a block quote too. What it is, its first words say: a
line that begins with a program's name or a word of the shell (`for`), or with `$ ` if output follows, is a
command. Python has an import; YAML and JSON begin with a key or a list. All else has to be marked as text, so
that nothing is left out because it was not recognized. Inline code is a command if it is a whole command
line: a program's name and at least one argument.

No command may hide that it fails (`|| true`): what its exit code is stands beside it.

What a page wants to say about a command stands where readers see it, in a comment at the end of its line:

    istio-iptables diff     # exit code 3            also `exit 0 yes, 3 no`: one of these
    kubectl get pods        # needs a cluster        not run, but listed

What only tests need is in comments of HTML, which readers do not see:

    <!-- needs: a cluster -->                  the next block, or the inline command before it, is not run
    <!-- before: istio-iptables -b '*' -->     run this first; it has to succeed
    <!-- scene: ipv4 -->                       from here on, in a new pod: see tests/kernel/sandbox.py
    <!-- listen: envoy 15001,15006 1337 -->    in the pod a process listens, as this UID
    <!-- text -->                              the next block is nothing that can be run or checked
    <!-- file: web.yaml -->                    the next block is what this file holds, from there on

Other comments say nothing to tests; `<!-- -->` ends a list, so that what comes next is a block.

Every second-level heading begins a section, and every section begins in a new pod of the same kind.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
_MORE = (*(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("README.md"))
PAGES = ("README.md", *sorted(path.relative_to(ROOT).as_posix() for path in _MORE))

#: What a line of a block begins with if it is a command.
_PROGRAM_NAMES = """
    istio-iptables istio-clean-iptables iptables iptables-save iptables-restore iptables-legacy
    iptables-legacy-save iptables-legacy-restore iptables-nft iptables-nft-save iptables-nft-restore
    ip6tables ip6tables-save ip6tables-restore ip6tables-legacy ip6tables-legacy-save ip6tables-legacy-restore
    ip6tables-nft ip6tables-nft-save ip6tables-nft-restore nft ip ss conntrack curl ncat dig
    capsh fuser unshare lsmod modprobe modinfo nsenter ps setpriv sleep sysctl dmesg getenforce ausearch
    cat cp diff echo env git grep head id install ls mkdir printf rm sed sh sudo tail tee test touch
    make pip pytest python3 podman docker crictl kubectl oc minikube kind talosctl gcloud runsc kustomize
    journalctl systemctl systemd-analyze systemd-run apt-get dnf hyperfine
"""
PROGRAMS = frozenset(_PROGRAM_NAMES.split())
#: Words of the shell that begin a command, and those that stand before one.
_KEYWORD_LIST = "for while until if case { ( [ [[ ! cd exec exit export eval set unset"
_KEYWORDS = frozenset(_KEYWORD_LIST.split())
_BEFORE_COMMANDS = {"if", "while", "until", "then", "else", "elif", "do", "!", "{", "("}
#: Where a construct of the shell begins that may go over several lines, and where it ends.
_OPENS = re.compile(r"(?:^|[;&|({]|\b(?:do|then|else)\b)\s*(?:for|while|until|if|case)\b")
_CLOSES = re.compile(r"(?:^|[;)}])\s*(?:done|fi|esac)\b")
#: What makes a command succeed whatever happened before.
_HIDES = re.compile(
    r"(?:\|\|?|;|&)\s*(?:true|:|exit(?: +0)?|/bin/true|/usr/bin/true)(?=\s*(?:[;|&)#}]|$))|^\s*!\s", re.M
)
#: A block that no rule of Markdown says begins here, for some readers of it at least, and others would miss.
_STRAY = re.compile(r"\s*(?:```|~~~|<pre\b|<code\b)| {0,3}\t")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})\s*([^`]*)$")
_QUOTE = re.compile(r" {0,3}> ?")
_LANGUAGES = {
    "console": "session",
    "sh": "commands",
    "bash": "commands",
    "py": "python",
    "python": "python",
    "yml": "yaml",
    "yaml": "yaml",
    "json": "json",
}
#: What tests do not have, and the programs that need it. A block may be left out for that reason if one of
#: its commands is of these.
NEEDS = {
    "a cluster": {"crictl", "gcloud", "kind", "kubectl", "kustomize", "minikube", "oc", "runsc", "talosctl"},
    "a node": {"ausearch", "dmesg", "getenforce", "journalctl", "lsmod", "modinfo", "modprobe", "tee"},
    "a container engine": {"docker", "podman", "make"},
    "a package index": {"apt-get", "dnf", "git", "pip"},
    "hyperfine": {"hyperfine"},
}


class Command(NamedTuple):
    """A command of a page, and what the page says of it."""

    page: str
    line: int
    text: str
    codes: tuple[int, ...] = (0,)
    output: str | None = None
    needs: str = ""
    shown: bool = True
    section: int = 0
    scene: str = "ipv4"
    block: int = 0  #: the line at which its block begins

    @property
    def where(self) -> str:
        """The place, as editors understand it."""
        return f"{self.page}:{self.line}"

    @property
    def programs(self) -> set[str]:
        """The programs that it runs, as far as their names tell."""
        parts = re.split(r"\||&&|;|\n", self.text)
        return {program_of(part, keywords=False) for part in parts} - {""}


class Listen(NamedTuple):
    """A process that is to listen on ports in the pod, or (`client`) outside of it."""

    page: str
    line: int
    name: str
    ports: tuple[int, ...]
    uid: int
    section: int
    scene: str


class Block(NamedTuple):
    """A block of code that is not made of commands: what it is, its text, and what it needs."""

    page: str
    line: int
    kind: str
    text: str
    needs: str
    section: int
    scene: str


class Page(NamedTuple):
    """All of a page that can be run or checked, in its order."""

    name: str
    steps: tuple[Command | Listen | Block, ...]

    @property
    def commands(self) -> list[Command]:
        """The commands that readers see."""
        return [step for step in self.steps if isinstance(step, Command) and step.shown]

    @property
    def blocks(self) -> list[Block]:
        """The blocks of everything else."""
        return [step for step in self.steps if isinstance(step, Block)]


class BadPage(ValueError):
    """A page that does not keep to the rules above."""


def read(name: str) -> Page:
    """Take a page of the documentation apart."""
    return parse(name, (ROOT / name).read_text())


def parse(name: str, text: str) -> Page:
    """Take the text of a page apart. Raises BadPage."""
    return Page(name, tuple(_Reader(name, text.splitlines()).read()))


def program_of(line: str, *, keywords: bool = True) -> str:
    """Return the name of the program that a line begins with, after variables and `sudo`, or nothing.

    With `keywords` a word of the shell counts as one, else what comes after it.
    """
    words = line.split()
    skipped = {"sudo"} if keywords else {"sudo", *_BEFORE_COMMANDS}
    while words and (re.match(r"[A-Za-z_]\w*=", words[0]) or words[0] in skipped):
        words.pop(0)
    if not words:
        return ""
    name = words[0].rpartition("/")[2]
    if keywords and (words[0] in _KEYWORDS or words[0][0] == "("):
        return words[0]
    return name if name in PROGRAMS else ""


class _Reader:
    def __init__(self, page: str, lines: list[str]) -> None:
        self.page = page
        self.lines = lines
        self.at = 0
        self.section = 0
        self.scene = "ipv4"
        self.needs = ""
        self.as_text = False
        self.file = ""

    def read(self) -> Iterator[Command | Listen | Block]:
        """Return the steps of the page."""
        blank = True
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if _QUOTE.match(line):
                self._unquote()
                blank = True
                continue
            if _FENCE.match(line):
                yield from self._fenced()
            elif line.startswith("    ") and blank:
                yield from self._indented()
            elif line.startswith("<!--"):
                yield from self._comment()
            elif _STRAY.match(line):
                raise BadPage(f"{self.page}:{self.at + 1}: put a blank line before it, or 4 spaces: {line!r}")
            else:
                if line.startswith("## "):
                    self.section += 1
                yield from self._inline(line)
                self.at += 1
                blank = not line.strip() or line.startswith("#")
                continue
            blank = True

    # --- blocks

    def _fenced(self) -> Iterator[Command | Block]:
        fence = _FENCE.match(self.lines[self.at])
        assert fence
        first = self.at + 1
        self.at = first
        while self.at < len(self.lines) and self.lines[self.at].strip() != fence[1]:
            self.at += 1
        if self.at == len(self.lines):
            raise BadPage(f"{self.page}:{first}: the fence is not closed")
        block = self.lines[first : self.at]
        self.at += 1
        yield from self._block(block, first + 1, fence[2].strip())

    def _unquote(self) -> None:
        """Take the marks of the block quote that begins here away: what is in it is read like all else."""
        at = self.at
        while at < len(self.lines) and _QUOTE.match(self.lines[at]):
            self.lines[at] = _QUOTE.sub("", self.lines[at], count=1)
            at += 1
        if at < len(self.lines) and self.lines[at].strip():
            self.lines.insert(at, "")  # what is after it is no part of it

    def _indented(self) -> Iterator[Command | Block]:
        first = self.at
        while self.at < len(self.lines) and (
            self.lines[self.at].startswith("    ") or not self.lines[self.at]
        ):
            self.at += 1
        while not self.lines[self.at - 1]:
            self.at -= 1
        yield from self._block([line[4:] for line in self.lines[first : self.at]], first + 1, "")

    def _block(self, lines: list[str], number: int, language: str) -> Iterator[Command | Block]:
        needs, self.needs = self.needs, ""
        as_text, self.as_text = self.as_text, False
        file, self.file = self.file, ""
        kind = "text" if as_text else _kind(lines, language) or ("text" if file else "")
        if kind == "session":
            yield from self._session(lines, number, needs)
        elif kind == "commands":
            for at, command in _joined(lines):
                yield self._command(number + at, command, needs=needs, block=number)
        else:
            if not kind:
                raise BadPage(
                    f"{self.page}:{number}: neither commands nor data: {lines[:1]} (see {__file__})"
                )
            text = "\n".join(lines) + "\n"
            if file:
                writing = f"cat >{file} <<'END-OF-FILE'\n{text}END-OF-FILE"
                yield Command(self.page, number, writing, shown=False, section=self.section, scene=self.scene)
            yield Block(self.page, number, kind, text, needs, self.section, self.scene)

    def _session(self, lines: list[str], number: int, needs: str) -> Iterator[Command]:
        starts = [at for at, line in enumerate(lines) if line.startswith("$ ")]
        if not starts or starts[0] != 0:
            raise BadPage(f"{self.page}:{number}: a session begins with a command after `$ `")
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            part = [lines[start][2:], *lines[start + 1 : end]]
            _, command = next(_joined(part))
            output = "\n".join(part[command.count("\n") + 1 :])
            yield self._command(number + start, command, output, needs, number)

    def _command(
        self, number: int, text: str, output: str | None = None, needs: str = "", block: int = 0
    ) -> Command:
        """Return a command with what the comment at its end says."""
        _, _, comment = text.splitlines()[0].partition(" # ") if "<<" in text else text.rpartition(" # ")
        codes: tuple[int, ...] = (0,)
        if not _in_quotes(text, comment):
            if found := re.search(r"\bexit(?: code)? (\d.*)", comment):
                codes = tuple(int(word) for word in re.findall(r"\d+", found[1]))
            if found := re.search(r"\bneeds (.*)", comment):
                needs = found[1].partition(":")[0].strip()
        if not needs and not program_of(text):
            raise BadPage(f"{self.page}:{number}: this is no command of a known program: {text!r}")
        self._refuse_hiding(number, text)
        made = Command(self.page, number, text, codes, output, needs)
        return made._replace(section=self.section, scene=self.scene, block=block)

    def _refuse_hiding(self, number: int, text: str) -> None:
        if _HIDES.search(text.partition("<<")[0]):
            raise BadPage(
                f"{self.page}:{number}: it would succeed whatever happens; say its exit code: {text!r}"
            )

    # --- the rest

    def _comment(self) -> Iterator[Command | Listen]:
        first = self.at
        while "-->" not in self.lines[self.at]:
            self.at += 1
        self.at += 1
        text = "\n".join(self.lines[first : self.at]).strip().removeprefix("<!--").removesuffix("-->")
        key, _, value = (part.strip() for part in text.partition(":"))
        if key == "needs":
            self.needs = value
        elif key == "text":
            self.as_text = True
        elif key == "file":
            self.file = value
        elif key == "scene":
            self.scene = value
            self.section += 1
        elif key == "before":
            for _, command in _joined(value.splitlines()):
                yield Command(
                    self.page, first + 1, command, shown=False, section=self.section, scene=self.scene
                )
        elif key == "listen":
            name, ports, uid = value.split()
            numbers = tuple(map(int, ports.split(",")))
            yield Listen(self.page, first + 1, name, numbers, int(uid), self.section, self.scene)
        elif difflib.get_close_matches(key, ("needs", "text", "file", "scene", "before", "listen")):
            raise BadPage(f"{self.page}:{first + 1}: a comment that is almost one for tests: {key!r}")

    def _inline(self, line: str) -> Iterator[Command]:
        for code in re.finditer(r"(?<!`)`([^`]+)`(?!`)", line):
            text = code[1].replace("\\|", "|")
            words = len(text.split()) > 1 and (program_of(text, keywords=False) or ";" in text)
            if not words or not program_of(text) or "…" in text:  # a message may begin like one
                continue
            self._refuse_hiding(self.at + 1, text)
            after = line[code.end() :]
            needs = re.match(r" ?(?:<!-- needs: (.*?) -->|\(needs (.*?)\))", after)
            exits = re.match(r" ?(?:<!-- exit code (\d+) -->|\(exit code (\d+)\))", after)
            yield Command(
                self.page,
                self.at + 1,
                text,
                (int(exits[1] or exits[2]),) if exits else (0,),
                needs=(needs[1] or needs[2]) if needs else "",
                section=self.section,
                scene=self.scene,
            )


def _kind(lines: list[str], language: str) -> str:
    """Return what a block is: session, commands, doctest, python, yaml, json, or nothing if it is unclear."""
    if lines and lines[0].startswith("$ "):
        return "session"
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if first.startswith(">>> "):
        return "doctest"
    if language:
        return _LANGUAGES.get(language, "")
    if program_of(first):
        return "commands"
    if _is_python("\n".join(lines)):
        return "python"
    return _data("\n".join(lines), first)


def _data(text: str, first: str) -> str:
    """Return `yaml` or `json` if a text, whose first line that says something is `first`, is that."""
    with contextlib.suppress(ValueError):
        return "json" if isinstance(json.loads(text), dict | list) else ""
    if re.match(r"(?:- )?[\w./\"'-]+:(?: |$)|- ", first):
        with contextlib.suppress(yaml.YAMLError):
            list(yaml.safe_load_all(text))
            return "yaml"
    return ""


def _is_python(text: str) -> bool:
    if not re.search(r"^(from \S+ )?import ", text, re.MULTILINE):
        return False
    try:
        compile(text, "block", "exec")
    except SyntaxError:
        return False
    return True


def _joined(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Return the commands of a block, each with its continued lines and its document (`<<EOF`)."""
    at = 0
    while at < len(lines):
        start = at
        end = re.search(r"<<-?\s*'?(\w+)'?", lines[at])
        if end:
            while lines[at].strip() != end[1]:
                at += 1
        while lines[at].endswith("\\"):
            at += 1
        at += 1
        while _depth(lines[start:at]) > 0 and at < len(lines):
            at += 1
        if lines[start].strip() and not lines[start].lstrip().startswith("#"):
            yield start, "\n".join(lines[start:at])


def _depth(lines: list[str]) -> int:
    """Return how many constructs of the shell (`for`, `if`) are open after these lines."""
    lines = [line.partition(" # ")[0].strip() for line in lines]
    return sum(len(_OPENS.findall(line)) - len(_CLOSES.findall(line)) for line in lines)


def _in_quotes(text: str, comment: str) -> bool:
    """Tell whether what looks like a comment stands in quotes."""
    try:
        words = shlex.split(text.removesuffix(f"# {comment}"))
    except ValueError:
        return True
    return not words


# --- output -----------------------------------------------------------------------------------


def not_run() -> str:
    """Return what tests do not run, a line each: tests/docs-not-run.txt, which a test compares with this."""
    lines = [
        f"{command.page}: {' '.join(command.text.partition(' # ')[0].split())} (needs {command.needs})\n"
        for name in PAGES
        for command in read(name).commands
        if command.needs
    ]
    return "".join(lines)


#: What differs from run to run, and what stands for it.
_VARIES = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "TIME"),
    (r"(?m)^# (Generated by|Completed on|Warning: ).*\n?", ""),
    (r"\[(?!0:0\])\d+:\d+\]", "[COUNTERS]"),
    (r"packets [1-9]\d* bytes \d+", "COUNTERS"),
    (r"(?m)^ *[1-9]\d*[KM]? +[1-9]\d*[KM]? (?=[A-Za-z])", "COUNTERS "),
    (r"(?m)^ +[1-9]\d* +[1-9]\d*  (?=[-!a-z])", "COUNTERS "),
    (r"(?m)^(tcp|udp) +(\d+) \d+ ", r"\1 \2 SECONDS "),
    (r"\bpid=\d+", "pid=PID"),
    (r"\b(3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|6[0-5]\d{3})\b", "PORT"),
    (r"iit-[\w-]+", "NAME"),
)


def settled(output: str) -> list[str]:
    """Return the lines of an output without what varies: times, counters other than 0, ports, white space."""
    for pattern, replacement in _VARIES:
        output = re.sub(pattern, replacement, output)
    return [" ".join(line.split()) for line in output.splitlines() if line.strip()]


def matches(shown: str, printed: str) -> bool:
    """Tell whether a page shows what was printed; a line `...` stands for any lines, none among them."""
    wanted, found = settled(shown), settled(printed)
    if "..." not in wanted:
        return wanted == found
    pattern = "".join("(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in wanted)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in found)) is not None


if __name__ == "__main__":
    print(not_run(), end="")
