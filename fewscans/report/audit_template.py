"""Template of the audit's page; escaped, and closed to loads from elsewhere, as the report's."""

from __future__ import annotations

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from fewscans.report.css import CSS
from fewscans.report.template import HEAD, coded

AUDIT_CSS = """
.pairs, .scans { display: grid; gap: 1rem; margin: 1rem 0 1.6rem; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); }
.scans { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.pair { border: 1px solid var(--line); border-radius: 4px; padding: .7rem; break-inside: avoid;
  margin: 0; min-width: 0; }
.pair.bad { border-color: var(--warn); }
.pair > p { font-size: .85rem; margin: 0 0 .5rem; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
.one { margin: 0; min-width: 0; }
.one img { width: 100%; height: 132px; object-fit: contain; background: #000; display: block; border-radius: 2px; }
.one figcaption { font-size: .78rem; line-height: 1.35; margin-top: .35rem; overflow-wrap: anywhere; }
.one b { display: block; font-weight: 600; }
.none { height: 132px; display: grid; place-items: center; background: var(--soft); color: var(--muted);
  font-size: .8rem; }
.scale { position: relative; width: 190px; height: 1.1em;
  background: linear-gradient(var(--line), var(--line)) 50% 50% / 100% 1px no-repeat; }
.scale::before { content: ""; position: absolute; left: 50%; top: 0; bottom: 0; border-left: 1px dashed var(--muted); }
.scale i { position: absolute; top: calc(50% - 2px); height: 4px; background: var(--muted); border-radius: 2px; }
.scale b { position: absolute; top: calc(50% - 5px); width: 10px; height: 10px; margin-left: -5px; border-radius: 50%;
  background: var(--muted); }
.ends { display: flex; justify-content: space-between; width: 190px; }
.warned .scale i, .warned .scale b { background: var(--warn); }
.warned td:first-child { font-weight: 600; }
:root { --warn: #a13d00; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --muted: #9aa4af; --line: #3a424b; --soft: #1d2329; --link: #7ab8ff; --warn: #ffa066; }
  body { background: #12161a; }
  .severity-error { color: #ff9b73; } .severity-warning { color: #f0b860; }
}
@media (max-width: 720px) { .scale, .ends { width: 110px; } }
"""

PAIRS = """
{%- macro scan(one) -%}
<figure class="one">
{%- if one.src %}<img src="{{ one.src }}" alt="scan {{ one.name }}">
{%- else %}<div class="none">not readable</div>{% endif %}
<figcaption><b>{{ one.name }}</b>{{ one.said }}</figcaption></figure>
{%- endmacro -%}
{%- macro pairs(found, bad) -%}
<div class="pairs">
{%- for pair in found.shown %}
<div class="pair{% if bad %} bad{% endif %}"><p class="muted">{{ pair.kind }}, {{ pair.patient }}</p>
<div class="two">{% for one in pair.scans %}{{ scan(one) }}{% endfor %}</div></div>
{%- endfor %}
</div>
{%- if found.n > found.shown | length %}
<p class="muted">The {{ found.shown | length }} most alike of {{ found.n }}; all stand in
<code>duplicates.parquet</code>.</p>
{%- endif %}
{%- endmacro -%}
"""

BODY = """<body>
{%- from "pairs" import pairs, scan %}
<header>
<h1>{{ title }}</h1>
<p class="lead">{{ lead }}</p>
<nav><a href="#checks">Everything found</a><a href="#shortcuts">Shortcuts</a>
<a href="#contradictions">Contradictions</a><a href="#duplicates">Duplicates</a><a href="#looks">Looks</a>
<a href="#balance">Classes</a></nav>
</header>
<main>
<div class="answer">
<p>{{ n_warnings if n_warnings else "No" }} warning{{ "" if n_warnings == 1 else "s" }}.
{%- set told = shortcuts | selectattr("warn") | rejectattr("attribute", "equalto", "all together") | list %}
{%- if told %} The label can be told from {{ told | map(attribute="attribute") | join(", ") }}.{% endif %}
{%- if contradictions.n %} {{ contradictions.n }} pair{{ "" if contradictions.n == 1 else "s" }} of duplicates
contradict{{ "s" if contradictions.n == 1 else "" }} each other in their labels.{% endif %}
{%- if across.n %} {{ across.n }} pair{{ "" if across.n == 1 else "s" }} of duplicates
lie{{ "s" if across.n == 1 else "" }} across the official split.{% endif %}</p>
<p>Look at the pictures below before you believe a score.
{%- if keys %} Scans are called by their keys; files and patients are not named here.{% endif %}</p>
</div>

<h2 id="checks">Everything found</h2>
{%- if not checks %}<p>Nothing.</p>{% else %}
<div class="scroll"><table class="wrap audit">
<thead><tr><th>check</th><th class="n">found</th><th>severity</th><th>what was done</th></tr></thead>
<tbody>
{%- for check in checks %}
<tr><td>{{ check.title }}</td><td class="n">{{ check.n }}</td>
<td class="severity-{{ check.severity }} nowrap">{{ check.severity }}</td>
<td>{{ check.actions | join("; ") | coded if check.actions else "nothing to do" }}</td></tr>
{%- endfor %}
</tbody></table></div>
{%- for check in checks %}
<details><summary>{{ check.title }} ({{ check.n }})</summary>
<ul>
{%- for row in check.rows %}
<li>{% if row.name %}<code>{{ row.name }}</code>: {% endif %}{{ row.said | coded }}</li>
{%- endfor %}
</ul></details>
{%- endfor %}
{%- endif %}

<h2 id="shortcuts">Shortcuts: can the label be told from what should not tell it?</h2>
{%- if not shortcuts %}
<p>Not tested: there are too few labelled groups, or no attribute differs between scans.</p>
{%- else %}
<div class="scroll"><table>
<thead><tr><th>told from</th><th class="n">AUC</th><th>95 % interval</th>
<th><div class="ends"><span>0</span><span>chance</span><span>1</span></div></th><th></th></tr></thead>
<tbody>
{%- for row in shortcuts %}
<tr{% if row.warn %} class="warned"{% endif %}><td>{{ row.attribute }}</td><td class="n">{{ row.auc }}</td>
<td class="nowrap">{{ row.interval }}</td>
<td><div class="scale"><i style="left:{{ row.low }}%;width:{{ row.wide }}%"></i>
<b style="left:{{ row.at }}%"></b></div></td>
<td class="nowrap {% if row.warn %}severity-warning{% else %}muted{% endif %}">
{{- "tells the label" if row.warn else "not shown to tell it" }}</td></tr>
{%- endfor %}
</tbody></table></div>
<p class="muted">How: {{ shortcut_method }}. A network may learn what tells the label here instead of the disease;
scores then say little of other hospitals.</p>
{%- endif %}

<h2 id="contradictions">Labels that contradict each other</h2>
{%- if not contradictions.n and not torn %}<p>None.</p>{% else %}
<p>{% if kept %}Kept, as the config says.{% else %}Nothing says which label is right: both are taken out, but for those
of an official test part, which stays as published.{% endif %}</p>
{%- endif %}
{%- if contradictions.n %}{{ pairs(contradictions, true) }}{% endif %}
{%- if torn %}<p>Two labels of one patient, on scans that are no duplicates:</p>
<ul>{% for text in torn %}<li>{{ text }}</li>{% endfor %}</ul>{% endif %}

<h2 id="duplicates">Duplicates</h2>
<p class="muted">Duplicates have the same pixels, or a correlation of at least {{ threshold }} between thumbnails of
32 x 32 pixels. Patients whom they join are one group, on one side of every split.</p>
<h3>Across the official split</h3>
{%- if across.n %}{{ pairs(across, true) }}{% else %}<p>None.</p>{% endif %}
<h3>In two patients</h3>
{%- if others.n %}{{ pairs(others, false) }}{% else %}<p>No others.</p>{% endif %}
{%- if groups %}
<h3>Groups of several patients</h3>
<div class="scroll"><table>
<thead><tr><th>group</th><th class="n">patients</th><th class="n">scans</th></tr></thead>
<tbody>{% for row in groups %}<tr><td><code>{{ row.group }}</code></td><td class="n">{{ row.patients }}</td>
<td class="n">{{ row.scans }}</td></tr>{% endfor %}</tbody></table></div>
{%- endif %}

<h2 id="looks">Scans that look unlike the others</h2>
{%- if not looks %}<p>None.</p>{% endif %}
{%- for look in looks %}
<h3>{{ look.title }}</h3>
<div class="scans">{% for one in look.shown %}{{ scan(one) }}{% endfor %}</div>
{%- if look.n > look.shown | length %}
<p class="muted">The first {{ look.shown | length }} of {{ look.n }} listed.</p>{% endif %}
{%- endfor %}

<h2 id="balance">Classes by part and site</h2>
{%- for table in balance if table.rows %}
<div class="scroll"><table>
<thead><tr><th>{{ table.by }}</th>{% for name in table.classes %}<th class="n">{{ name }}</th>{% endfor %}
<th class="n">all</th></tr></thead>
<tbody>
{%- for row in table.rows %}
<tr><td>{{ row.name }}</td>{% for n in row.counts %}<td class="n">{{ n }}</td>{% endfor %}
<td class="n">{{ row.n }}</td></tr>
{%- endfor %}
</tbody></table></div>
{%- else %}
<p>The table names neither official parts nor sites.</p>
{%- endfor %}
</main>
<footer>Made by fewscans. Pictures are of converted scans, between their 0.5th and 99.5th percentile, volumes by their
middle slice. The page is complete in itself
{%- if keys %} and can be sent as one file{% else %}; it names files, so mind who reads it{% endif %}.</footer>
</body>
</html>
"""


def page_template() -> Template:
    """The page; a name that is not given is an error, not an empty place."""
    made = Environment(
        loader=DictLoader({"page": HEAD + BODY, "pairs": PAIRS}),
        autoescape=True,
        undefined=StrictUndefined,
    )
    made.globals["css"] = Markup(CSS + AUDIT_CSS)
    made.filters["coded"] = coded
    return made.get_template("page")
