"""A chain drawn: as a tree in text, as a Mermaid flow chart, as Graphviz dot.

    checkout                       frontend     120.00 ms  ████████████████  path 12.50 ms
    ├─ charge                      payment       80.00 ms     ██████████     path 80.00 ms
    └─ ship                        shipping      20.00 ms                ██  FAILED, began here

Invariant: text of events reaches a drawing only escaped, so no event can add to a diagram what is not in the chain.
"""

from collections.abc import Iterator

from analysis_service.chains.chain import NO_PARENT, Chain

SPANS_DRAWN_MAX = 500
_BAR_WIDTH = 24
_NAME_WIDTH_MAX = 60


def draw_text(chain: Chain, *, spans_max: int = SPANS_DRAWN_MAX) -> str:
    """The chain as lines: name, source, duration, when it ran, what is worth noting."""
    shown = _shown(chain, spans_max)
    names = dict(zip(shown, _tree_names(chain, shown), strict=True))
    name_width = max((len(name) for name in names.values()), default=0)
    source_width = max((len(_clean(chain.sources[span])) for span in shown), default=0)
    lines = [_heading(chain)]
    for span in shown:
        duration = _milliseconds(int(chain.ends[span] - chain.starts[span]))
        columns = (
            names[span].ljust(name_width),
            _clean(chain.sources[span]).ljust(source_width),
            f"{duration:>14}",
            _bar(chain, span),
            ", ".join(_notes(chain, span)),
        )
        lines.append("  ".join(columns).rstrip())
    if len(chain) > len(shown):
        lines.append(f"… and {len(chain) - len(shown)} more events")
    return "\n".join(lines)


def draw_mermaid(chain: Chain, *, spans_max: int = SPANS_DRAWN_MAX) -> str:
    """A Mermaid flow chart; the critical path is drawn thick, failures are red."""
    shown = _shown(chain, spans_max)
    lines = ["flowchart LR"]
    for span in shown:
        label = "<br/>".join(map(_mermaid_text, _label(chain, span)))
        lines.append(f'  s{span}["{label}"]')
    for parent, span in _edges(chain, shown):
        lines.append(f"  s{parent} {'==>' if chain.on_path[span] else '-->'} s{span}")
    lines.append("  classDef failed stroke:#c00,stroke-width:2px")
    lines += [f"  class s{span} failed" for span in shown if chain.failed[span]]
    return "\n".join(lines)


def draw_graphviz(chain: Chain, *, spans_max: int = SPANS_DRAWN_MAX) -> str:
    """A Graphviz digraph; the critical path is drawn thick, failures are red, orphans dashed."""
    shown = _shown(chain, spans_max)
    lines = ["digraph chain {", "  rankdir=LR;", "  node [shape=box];"]
    for span in shown:
        label = "\\n".join(map(_dot_text, _label(chain, span)))
        style = 'color="#cc0000", ' if chain.failed[span] else ""
        style += "style=dashed, " if chain.orphans[span] else ""
        lines.append(f'  s{span} [{style}label="{label}"];')
    for parent, span in _edges(chain, shown):
        lines.append(f"  s{parent} -> s{span}{' [penwidth=3]' if chain.on_path[span] else ''};")
    return "\n".join([*lines, "}"])


def _shown(chain: Chain, spans_max: int) -> list[int]:
    return [span for span, _ in zip(chain.in_tree_order(), range(spans_max), strict=False)]


def _edges(chain: Chain, shown: list[int]) -> Iterator[tuple[int, int]]:
    for span in shown:
        parent = int(chain.parents[span])
        if parent != NO_PARENT:
            yield parent, span


def _tree_names(chain: Chain, shown: list[int]) -> Iterator[str]:
    """Names with the lines of a tree before them."""
    last_child: dict[int, int] = {}
    for span in shown:
        last_child[int(chain.parents[span])] = span
    stems: dict[int, str] = {}
    for span in shown:
        parent = int(chain.parents[span])
        name = _clean(chain.types[span])
        if parent == NO_PARENT:
            stems[span] = ""
            yield name
            continue
        last = last_child[parent] == span
        stems[span] = stems[parent] + ("   " if last else "│  ")
        yield stems[parent] + ("└─ " if last else "├─ ") + name


def _heading(chain: Chain) -> str:
    facts = [f"{len(chain)} events", _milliseconds(chain.duration_ns)]
    facts += [f"{int(chain.failed.sum())} failed"] if chain.failed.any() else []
    facts += [f"{int(chain.orphans.sum())} orphans"] if chain.orphans.any() else []
    facts += [f"{chain.duplicates} duplicates left out"] if chain.duplicates else []
    facts += ["parents inferred from time"] if chain.inferred and (chain.parents != NO_PARENT).any() else []
    return f"{_clean(chain.correlation_id)}: {', '.join(facts)}"


def _bar(chain: Chain, span: int) -> str:
    begin = int(chain.starts.min())
    whole = max(1, int(chain.ends.max()) - begin)
    first = min(_BAR_WIDTH - 1, int(chain.starts[span] - begin) * _BAR_WIDTH // whole)
    stop = max(first + 1, -(-int(chain.ends[span] - begin) * _BAR_WIDTH // whole))
    return (" " * first + "█" * (stop - first)).ljust(_BAR_WIDTH)


def _notes(chain: Chain, span: int) -> Iterator[str]:
    if chain.path_ns[span]:
        yield f"path {_milliseconds(int(chain.path_ns[span]))}"
    if chain.failed[span]:
        yield "FAILED, began here" if span in chain.origins else "FAILED"
    if chain.orphans[span]:
        yield "orphan"


def _label(chain: Chain, span: int) -> tuple[str, str, str]:
    return chain.types[span], chain.sources[span], _milliseconds(int(chain.ends[span] - chain.starts[span]))


def _milliseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.2f} ms"


def _clean(text: str) -> str:
    """Without what would break a line, and not too long."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _NAME_WIDTH_MAX else printable[: _NAME_WIDTH_MAX - 1] + "…"


def _mermaid_text(text: str) -> str:
    return "".join(c if c.isalnum() or c in " .,_-:/…" else f"#{ord(c)};" for c in _clean(text))


def _dot_text(text: str) -> str:
    return _clean(text).replace("\\", "\\\\").replace('"', '\\"')
