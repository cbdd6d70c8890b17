"""Style sheet of the page; a module, so that a change of it counts as a change of code."""

CSS = """
:root { --ink: #1f2328; --muted: #59636e; --line: #d8dee4; --soft: #f6f8fa; --link: #0550ae; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 36px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.45rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 2px solid var(--ink);
  overflow-wrap: anywhere; }
h3 { font-size: 1.12rem; margin: 2.2rem 0 .5rem; }
h4 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .5rem 0; max-width: 84ch; overflow-wrap: anywhere; }
a { color: var(--link); }
nav { font-size: .92rem; margin: 1rem 0 0; }
nav a { margin-right: 1.1em; }
.muted, .caption { color: var(--muted); }
.lead { font-size: 1.12rem; }
.answer { background: var(--soft); border-left: 4px solid var(--ink); padding: .8rem 1.1rem; margin: 1rem 0; }
.answer p:first-child { margin-top: 0; font-size: 1.12rem; font-weight: 600; }
.answer p:last-child { margin-bottom: 0; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .32rem .42rem; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 2px solid var(--ink); white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.arm, td.nowrap { white-space: nowrap; }
tr.group th { background: var(--soft); padding-top: .55rem; }
tr.baseline td { color: var(--muted); }
.wrap td { overflow-wrap: anywhere; min-width: 7em; }
.wrap td.nowrap { overflow-wrap: normal; }
.v { display: inline-block; white-space: nowrap; font-weight: 600; }
.v::before { display: inline-block; width: 1.15em; font-weight: 400; }
.v-gain { color: #00664b; } .v-gain::before { content: "\\25B2"; }
.v-worse { color: #a13d00; } .v-worse::before { content: "\\25BC"; }
.v-no-gain { color: #444c56; } .v-no-gain::before { content: "\\25A0"; }
.v-cannot-tell { color: #59636e; } .v-cannot-tell::before { content: "\\25CB"; }
.flag { display: inline-block; font-size: .78rem; border: 1px solid var(--line); border-radius: 3px; padding: 0 .35em;
  margin: 0 .25em .1em 0; font-weight: 400; color: var(--muted); white-space: nowrap; }
.severity-error, .severity-warning { font-weight: 600; }
.severity-error { color: #a13d00; } .severity-warning { color: #7a4d00; } .severity-info { color: var(--muted); }
figure { margin: 1.4rem 0 2.2rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .92rem; color: var(--muted); max-width: 80ch; margin-top: .5rem; }
figcaption b { color: var(--ink); }
dl { display: grid; grid-template-columns: minmax(9em, max-content) 1fr; gap: .3rem 1.2rem;
  margin: .8rem 0; font-size: .95rem; }
dt { font-weight: 600; overflow-wrap: anywhere; } dd { margin: 0; max-width: 76ch; overflow-wrap: anywhere; }
details { margin: .7rem 0; } summary { cursor: pointer; color: var(--link); }
ul { padding-left: 1.2em; margin: .3rem 0; } li { margin: .15rem 0; max-width: 84ch; overflow-wrap: anywhere; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
footer { color: var(--muted); font-size: .85rem; padding-top: 2rem; padding-bottom: 3rem; }
@media (max-width: 720px) {
  body { font-size: 15px; } h1 { font-size: 1.5rem; } main, header, footer { padding-left: 14px; padding-right: 14px; }
  th, td { padding: .3rem .5rem; } td.arm { white-space: normal; min-width: 9.5em; }
  .picture { overflow-x: auto; } .picture img { max-width: none; }
  dl { grid-template-columns: 1fr; gap: .1rem; } dd { margin-bottom: .5rem; }
}
@media print {
  body { font-size: 10pt; } main, header, footer { max-width: none; padding: 0; } nav { display: none; }
  .scroll { overflow: visible; } figure, tr, .answer { break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
  details::details-content { content-visibility: visible; height: auto; } a { color: inherit; }
}
"""
