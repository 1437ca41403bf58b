"""The look of an examination's page: one scale of blue by class, light and dark, at any width, and on paper."""

from __future__ import annotations

_LIGHT = ("#e8eff8", "#d2e1f2", "#b4cfea", "#92b9df", "#6d9fd1", "#4c85c0", "#336ba9", "#20518c", "#123a6b")
_DARK = ("#17222f", "#1a2f47", "#1d3d60", "#224d7c", "#2d6199", "#4079b5", "#5b94cd", "#80b2e2", "#b2d5f5")


def _scale(colours: tuple[str, ...]) -> str:
    return "".join(f"--q{i}:{colour};" for i, colour in enumerate(colours))


STYLE = (
    ":root{--paper:#fff;--ink:#1b232c;--dim:#5b6876;--grid:#dfe5ec;--card:#f7f9fb;--bar:#336ba9;--range:#a9c6e4;--mark:#c2410c;"
    f"--bad:#b3261e;--error:#c2410c;--input:#2f7d4f;{_scale(_LIGHT)}}}"
    "@media (prefers-color-scheme:dark){:root{--paper:#10161d;--ink:#e4eaf1;--dim:#9aa7b5;--grid:#2a3541;--card:#161e27;--bar:#5b94cd;"
    f"--range:#2d5379;--mark:#fb923c;--bad:#f2867d;--error:#fb923c;--input:#6cc492;{_scale(_DARK)}}}}}"
    "*{box-sizing:border-box}"
    "body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:64rem;background:var(--paper);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    "h1{font-size:1.5rem;margin:0 0 .2rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:0 0 .5rem;overflow-wrap:anywhere}"
    "header p{margin:.1rem 0;color:var(--dim);overflow-wrap:anywhere}"
    "section{margin:1.4rem 0;padding:1rem;background:var(--card);border:1px solid var(--grid);border-radius:8px}"
    "ul{margin:0;padding-left:1.2rem}li{margin:.25rem 0;overflow-wrap:anywhere}"
    "footer,.note,figcaption,caption{color:var(--dim);font-size:.87rem}.note{margin:0 0 .7rem}footer p{margin:.2rem 0}"
    "figure{margin:0 0 .8rem}figcaption{margin-top:.1rem}"
    ".three{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:1rem}"
    "svg{display:block;width:100%;height:auto;font:11px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    "svg text{fill:var(--ink)}svg .dim{fill:var(--dim)}svg path{fill:none}"
    "svg .grid,svg .axis{stroke:var(--grid);stroke-width:1}svg .axis{stroke:var(--dim)}"
    "svg .bar{fill:var(--bar)}svg .range{fill:var(--range)}svg .mark{stroke:var(--mark);stroke-width:2}svg .bad{fill:var(--bad)}"
    "svg .on{font-size:9px}svg .hi{fill:var(--paper)}svg .mid{fill:#fff}"
    "svg .line{stroke-width:1.2;stroke-linejoin:round}svg .line.magnitude{stroke:var(--bar)}svg .line.error{stroke:var(--error)}"
    "svg .line.input{stroke:var(--input)}svg text.error{fill:var(--error)}svg text.input{fill:var(--input)}"
    + "".join(f"svg .q{i}{{fill:var(--q{i})}}" for i in range(9))
    + "svg rect:hover{stroke:var(--ink);stroke-width:1}"
    ".key{margin-left:.8rem;padding-left:1.1rem;border-left:0;position:relative}"
    ".key::before{content:'';position:absolute;left:0;top:.55em;width:.8rem;height:2px;background:var(--bar)}"
    ".key.error::before{background:var(--error)}.key.input::before{background:var(--input)}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;width:100%}"
    "caption{text-align:left;padding:.2rem 0}th,td{padding:.15rem .6rem .15rem 0;text-align:right;white-space:nowrap}"
    "th{border-bottom:1px solid var(--grid);color:var(--dim);font-weight:600}.l{text-align:left}"
    "summary{cursor:pointer}"
    "@media print{section{break-inside:avoid}}"
)
