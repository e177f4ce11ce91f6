"""How the page looks: on a phone, on a wide screen, in the dark and on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1d2328; --dim: #5b656e; --paper: #ffffff;
  --card: #f4f6f8; --line: #d5dbe0; --accent: #00558a; --good: #00664a; --bad: #a34700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8eb; --dim: #a3adb5; --paper: #14181b; --card: #1e2428; --line: #38414a;
    --accent: #6cc0f0; --good: #4fd0a7; --bad: #f0a060; }
  /* Light becomes dark and colours stay what they are. */
  .picture img { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 54rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.4rem 0 0.6rem; padding-bottom: 0.2rem; font-size: 1.25rem;
  border-bottom: 1px solid var(--line); }
h3 { margin: 1.4rem 0 0.4rem; font-size: 1rem; }
p, ul { margin: 0.5rem 0; }
ul { padding-left: 1.2rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; margin: 0.8rem 0; font-size: 0.9rem; }
.dim, figcaption, .none { color: var(--dim); font-size: 0.9rem; }
.verdict { margin: 1rem 0; padding: 0.8rem 1rem; background: var(--card); font-size: 1.1rem;
  border-left: 0.3rem solid var(--dim); border-radius: 0.3rem; }
.verdict.good { border-color: var(--good); }
.verdict.bad { border-color: var(--bad); }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr));
  gap: 0.6rem; margin: 1rem 0; }
.numbers div { padding: 0.6rem 0.8rem; background: var(--card); border-radius: 0.3rem; }
.numbers b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--dim); font-size: 0.85rem; }
.wide, .picture, pre { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; overflow-wrap: normal; }
th, td { padding: 0.3rem 0.9rem 0.3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
@media (max-width: 30rem) {
  table { font-size: 0.85rem; } th, td { padding-right: 0.55rem; }
  td:not(.number) { overflow-wrap: anywhere; }
  .stacks table, .stacks tbody, .stacks tr, .stacks td { display: block; }
  .stacks thead { display: none; }
  .stacks tr { padding: 0.4rem 0; border-bottom: 1px solid var(--line); }
  .stacks td { border: 0; padding: 0.05rem 0; }
  .stacks td:first-child { font-weight: 600; }
  .stacks td:not(:first-child) { display: flex; justify-content: space-between; gap: 1rem;
    text-align: right; white-space: normal; }
  .stacks td:not(:first-child)::before { content: attr(data-of); color: var(--dim);
    text-align: left; }
  pre { white-space: pre-wrap; }
}
th { color: var(--dim); font-weight: 600; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
pre { padding: 0.7rem 0.9rem; background: var(--card); border-radius: 0.3rem; font-size: 0.85rem;
  overflow-wrap: normal; }
details { margin: 0.8rem 0; }
summary { cursor: pointer; color: var(--accent); }
figure { margin: 1rem 0 1.8rem; }
.picture { border-radius: 0.3rem; }
.picture img { display: block; width: 100%; height: auto; }
@media print {
  :root { --ink: #000; --dim: #444; --paper: #fff; --card: #f4f4f4; --line: #bbb;
    --accent: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  summary { list-style: none; font-weight: 600; color: var(--ink); }
  .picture img { filter: none; max-height: 20cm; object-fit: contain; }
  .wide, .picture, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  figure, tr, .verdict, .numbers { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; }
}
"""
