"""Template of the page; a module, so that a change of it counts as a change of code.

Autoescaping is on for everything. The policy in the head forbids scripts and every load from elsewhere, so that even
a name that escaped escaping could do nothing.
"""

from __future__ import annotations

import re

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from fewscans.report.css import CSS

MACROS = """
{%- macro verdict(word) -%}
<span class="v v-{{ word | replace(" ", "-") }}">{{ word }}</span>
{%- endmacro -%}
"""

# Of every page: no script, and no load from elsewhere.
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ css }}</style>
</head>
"""

BODY = """<body>
{%- from "macros" import verdict %}
<header>
<h1>{{ title }}</h1>
<p class="lead">{{ question }}</p>
<nav>
{%- for block in blocks %}<a href="#d{{ loop.index }}">{{ block.name }}</a>{% endfor -%}
<a href="#verdicts">What the verdicts mean</a><a href="#methods">How it was done</a></nav>
</header>
<main>
{%- for block in blocks %}{% set index = loop.index %}{% include "block" %}{% endfor %}
<h2 id="verdicts">What the verdicts mean</h2>
<dl>
{%- for word, text in verdicts %}<dt>{{ verdict(word) }}</dt><dd>{{ text }}</dd>{% endfor -%}
</dl>
<p>An interval of a difference holds two kinds of luck: which patients were at hand, and how training fell out. The
intervals of one budget hold together, so that many arms make no more false verdicts than few. &ldquo;Cannot
tell&rdquo; is not &ldquo;no difference&rdquo;.</p>
{% include "methods" %}
</main>
<footer>Made by fewscans. Every number here stands in <code>ablation_table.csv</code> and in the CSV file beside each
figure. The page is complete in itself and can be sent as one file.</footer>
</body>
</html>
"""

BLOCK = """
{%- from "macros" import verdict %}
<section id="d{{ index }}">
<h2>{{ block.name }}</h2>
{%- if block.cohort %}<p class="muted">{{ block.cohort }}</p>{% endif %}
<div class="answer">
<p>{{ block.answer.headline }}</p>
{%- if block.answer.detectable %}<p>{{ block.answer.detectable }}</p>{% endif %}
</div>
{%- if block.answer.grid %}
<div class="scroll"><table class="grid">
<thead><tr><th>arm</th>{% for budget in block.answer.budgets %}<th>{{ budget }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in block.answer.grid %}
<tr{% if not row.pretrained %} class="baseline"{% endif %}><td class="arm">{{ row.arm }}</td>
{%- for cell in row.cells %}<td class="nowrap">
{%- if cell %}{{ verdict(cell.verdict) }} <span class="muted">{{ cell.diff }}</span>{% endif %}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- endif %}
{%- if block.answer.n_sentences %}
<details{% if block.answer.n_sentences <= 12 %} open{% endif %}><summary>In sentences</summary>
{%- for part in block.answer.sentences if part.said %}
<h4>With {{ part.budget }}</h4>
<ul>
{%- for s in part.said %}
<li>{{ s.arm }}: {{ verdict(s.verdict) }} against {{ s.against }} ({{ s.numbers }}).</li>
{%- endfor %}
</ul>
{%- endfor %}
</details>
{%- endif %}
{%- if block.answer.chosen %}
<h4>Best by inner validation</h4>
<p class="muted">Chosen without test scores, which is the only fair way to name a best arm.</p>
<ul>{% for text in block.answer.chosen %}<li>{{ text }}</li>{% endfor %}</ul>
{%- endif %}

<h3>Table</h3>
{%- for table in block.tables %}
{%- if loop.index > 1 %}<details><summary>Per {{ table.unit }}</summary>{% endif %}
<p class="muted">{{ table.metric }} per {{ table.unit }} with interval, and difference from the baseline.
{%- if table.n_groups %} {{ table.n_groups }} independent groups of patients are tested.{% endif %}</p>
<div class="scroll"><table class="scores">
<thead><tr><th>arm</th><th>{{ table.metric }}</th><th>difference</th><th>verdict</th><th class="n">could show</th>
<th class="n">device time</th><th>flags</th></tr></thead>
{%- for group in table.groups %}
<tbody><tr class="group"><th colspan="7">{{ group.budget }}</th></tr>
{%- for row in group.rows %}
<tr{% if row.baseline %} class="baseline"{% endif %}>
<td class="arm">{{ row.arm }}</td>
<td class="nowrap">{{ row.value }} <span class="muted">{{ row.interval }}</span></td>
{%- if row.verdict %}
<td class="nowrap">{{ row.diff }} <span class="muted">{{ row.diff_interval }}</span></td>
<td>{{ verdict(row.verdict) }}</td><td class="n">{{ row.detectable }}</td>
{%- else %}<td></td><td>{% if row.baseline %}baseline{% endif %}</td><td></td>{% endif %}
<td class="n">{{ row.seconds }}</td><td class="nowrap">
{%- for flag in block.flags if flag.flag in row.flags %}
<span class="flag" title="{{ flag.flag }}">{{ flag.letter }}</span>
{%- endfor %}</td></tr>
{%- endfor %}
</tbody>
{%- endfor %}
</table></div>
{%- if loop.index > 1 %}</details>{% endif %}
{%- endfor %}
<p class="muted">&ldquo;Could show&rdquo; is the smallest difference that these data would have shown four times in
five.</p>
{%- if block.metrics.rows %}
<details><summary>All metrics</summary>
<div class="scroll"><table>
<thead><tr><th>labelled</th><th>arm</th>
{%- for column in block.metrics.columns %}<th class="n">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in block.metrics.rows %}
<tr><td class="nowrap">{{ row.budget }}</td><td class="arm">{{ row.arm }}</td>
{%- for value in row["values"] %}<td class="n">{{ value }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div></details>
{%- endif %}
{%- if block.flags %}
<h4>Flags</h4>
<dl>{% for flag in block.flags %}<dt><span class="flag">{{ flag.letter }}</span> {{ flag.flag }}</dt>
<dd>{{ flag.text }}</dd>{% endfor %}</dl>
{%- endif %}

<h3>Figures</h3>
{%- for figure in block.figures %}
<figure id="{{ figure.id }}">
<div class="picture"><img src="{{ figure.src }}" width="{{ figure.width }}"
alt="{{ figure.title }}, {{ block.name }}"></div>
<figcaption><b>{{ figure.title }}.</b> {{ figure.caption | coded }}</figcaption>
</figure>
{%- endfor %}

<h3>What the audit found</h3>
{%- if not block.audit.known %}<p>No audit was found for this data set.</p>
{%- elif not block.audit.checks %}<p>Nothing.</p>
{%- else %}
<div class="scroll"><table class="wrap audit">
<thead><tr><th>check</th><th class="n">found</th><th>severity</th><th>what was done</th></tr></thead>
<tbody>
{%- for check in block.audit.checks %}
<tr><td>{{ check.title }}</td><td class="n">{{ check.n }}</td>
<td class="severity-{{ check.severity }} nowrap">{{ check.severities | join(", ") }}</td>
<td>{{ check.actions | join("; ") | coded if check.actions else "nothing to do" }}</td></tr>
{%- endfor %}
</tbody></table></div>
{%- for check in block.audit.checks %}
<details{% if check.check == "shortcut" %} open{% endif %}><summary>{{ check.title }} ({{ check.n }})</summary>
<ul>
{%- for row in check.rows %}
<li>{% if row.path %}<code>{{ row.path }}</code>: {% endif %}{{ row.message | coded }}</li>
{%- endfor -%}
{%- if check.more > 0 %}<li>and {{ check.more }} more, in the audit's own table</li>{% endif -%}
</ul></details>
{%- endfor %}
{%- endif %}
</section>
"""

METHODS = """
<h2 id="methods">How it was done</h2>
<dl>{% for name, text in methods.facts %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
{%- if methods.encoders %}
<h3>Pretrained encoders</h3>
<div class="scroll"><table class="wrap">
<thead><tr><th>encoder</th><th>network</th><th>recipe</th><th class="n">scans seen</th><th class="n">device time</th>
<th>settings as they came out</th></tr></thead>
<tbody>
{%- for e in methods.encoders %}
<tr><td>{{ e.name }}</td><td class="nowrap">{{ e.network }}</td><td class="nowrap">{{ e.recipe }}</td>
<td class="n">{{ e.scans }}</td><td class="n">{{ e.seconds }}</td><td>{{ e.settings }}</td></tr>
{%- endfor %}
</tbody></table></div>
<p class="muted">Device time is the sum over folds and seeds.</p>
{%- endif %}
<h3>Recipes</h3>
<dl>{% for r in methods.recipes %}<dt>{{ r.name }}</dt><dd>{{ r.settings }}</dd>{% endfor %}</dl>
<h3>Versions and digests</h3>
<p>{{ methods.versions }}.</p>
<dl>{% for name, value in methods.digests %}<dt>{{ name }}</dt><dd><code>{{ value }}</code></dd>{% endfor %}</dl>
<p class="muted">Rows can be compared where the digests of data and splits are the same.</p>
"""


def environment() -> Environment:
    """Templates by name; a name that is not given is an error, not an empty place."""
    loader = DictLoader({"page": HEAD + BODY, "block": BLOCK, "methods": METHODS, "macros": MACROS})
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    made.globals["css"] = Markup(CSS)
    made.filters["coded"] = coded
    return made


def coded(text: str) -> Markup:
    """`text`, escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
